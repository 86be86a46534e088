// The address of the page as the visitor's browser knows it: right behind every proxy.
const address = new URL(".", location.href).href;
const fill = () => {
    for (const part of element.querySelectorAll(".address"))
        if (part.textContent !== address) part.textContent = address;
};
fill();
new MutationObserver(fill).observe(element, { childList: true, subtree: true });

const copy = async (code) => {
    try {
        await navigator.clipboard.writeText(code.textContent);
    } catch {  // a page without https, or inside another one, may not write there directly
        const range = document.createRange();
        range.selectNodeContents(code);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        return document.execCommand("copy");
    }
    return true;
};
element.addEventListener("click", async (event) => {
    const button = event.target.closest("figcaption button");
    if (!button) return;
    const { copy: before, done, failed } = button.dataset;
    const figure = button.closest("figure");
    const said = (await copy(figure.querySelector("code"))) ? done : failed;
    button.textContent = said;
    figure.querySelector("[role=status]").textContent = said;
    setTimeout(() => {
        button.textContent = before;
        figure.querySelector("[role=status]").textContent = "";
    }, 2500);
});
