// The swipe, and the two downloads. `element` is the gr.HTML around the figure; its content comes and goes.
let cut = 50;

element.addEventListener("input", (event) => {
    if (!event.target.matches(".cut")) return;
    cut = event.target.value;
    follow();
});
new MutationObserver(follow).observe(element, { childList: true, subtree: true });

// All panes are cut at the same place, new ones too.
function follow() {
    element.style.setProperty("--cut", `${cut}%`);
    for (const range of element.querySelectorAll(".cut")) range.value = cut;
}

element.addEventListener("click", async (event) => {
    const what = event.target.closest("[data-save]")?.dataset.save;
    const panes = element.querySelector(".panes");
    if (what === "numbers") save(new Blob([panes.dataset.numbers], { type: "text/csv" }), "evidence.csv");
    if (what === "picture") save(await drawn(panes), "evidence.png");
});

function save(content, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// The panes beside one another as they are seen, at the photo's own size.
async function drawn(panes) {
    const photo = new Image();
    photo.src = panes.style.getPropertyValue("--photo").match(/url\(["']?(.*?)["']?\)/)[1];
    await photo.decode();
    const maps = [...panes.querySelectorAll("img.map")];
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [photo.naturalWidth * maps.length, photo.naturalHeight];
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    maps.forEach((map, index) => {
        const place = [index * photo.naturalWidth, 0, photo.naturalWidth, photo.naturalHeight];
        context.globalAlpha = 1;
        context.drawImage(photo, ...place);
        context.globalAlpha = Number(getComputedStyle(map).opacity);
        context.drawImage(map, ...place);
    });
    return new Promise((done) => canvas.toBlob(done, "image/png"));
}
