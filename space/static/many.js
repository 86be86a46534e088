// The table of the tab Many. The server sends messages as the component's value: "start" opens the table, "rows" brings
// the next rows and is answered by asking for those after them, "failed" ends it. All that a file is called or a bundle
// says is set as text, never as HTML. `element`, `props`, `trigger` and `watch` are Gradio's.

const RETRIES = 3, PAUSE = 1000; // ms, and longer each time, after an answer that was lost; then a button asks
const MOST_LABELS = 12; // counted above the table
const COLUMNS = ["file", "label", "verdict", "probability", "margin"]; // on a phone the last ones are scrolled to
const RANK = { doubt: 0, likely: 1, sure: 2 };
let run = null; // the drop that is shown

watch("value", () => {
    const message = props.value ? JSON.parse(props.value) : {};
    if (message.kind === "start") start(message);
    else if (run && message.run === run.id && message.kind === "rows") add(message);
    else if (run && message.run === run.id && message.kind === "failed") end(message.error);
});
document.addEventListener("many-lost", () => {
    if (!run || run.over) return;
    if (run.lost++ < RETRIES) setTimeout(ask, PAUSE * run.lost, run);
    else end(run.texts.lost, true);
});

// ---------------------------------------------------------------- the run

function start(message) {
    run?.dialog.close();
    run = { ...message, id: message.run, rows: [], done: 0, lost: 0, began: performance.now(), over: false };
    run.collator = new Intl.Collator(run.language, { numeric: true });
    run.sort = { by: "margin", down: false };
    draw();
    if (run.total) ask(run);
    else end("");
}

function ask(asking) {
    if (asking === run && !run.over) trigger("next", { run: run.id, done: run.done });
}

function add(message) {
    if (message.done <= run.done) return;
    [run.done, run.lost] = [message.done, 0];
    run.csv += message.csv;
    for (const values of message.rows) run.rows.push({ ...values, number: run.rows.length, line: null });
    for (const row of run.rows.slice(-message.rows.length)) row.line = line(row);
    offerLabels();
    count();
    arrange();
    say();
    // Asked once more when all is done, the server forgets the run.
    if (run.done < run.total) ask(run);
    else {
        trigger("next", { run: run.id, done: run.done });
        end(run.texts.finished);
    }
}

function cancel() {
    trigger("stop");
    end(run.texts.cancelled);
}

function end(sentence, again = false) {
    run.over = true;
    run.ending = sentence;
    run.parts.cancel.hidden = true;
    run.parts.again.hidden = !again;
    if (again) run.parts.again.focus();
    say();
}

function goOn() {
    [run.over, run.lost] = [false, 0];
    run.parts.cancel.hidden = false;
    run.parts.again.hidden = true;
    ask(run);
    say();
}

// ---------------------------------------------------------------- what stands on the page

function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes))
        if (name in made && typeof value !== "string") made[name] = value;
        else made.setAttribute(name, value);
    made.append(...children);
    return made;
}

function fill(text, values) {
    return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function button(text, click, attributes = {}) {
    return make("button", { type: "button", onclick: click, ...attributes }, text);
}

function choice(text, options, change) {
    const select = make("select", { onchange: change, "aria-label": text }, ...options.map(([value, name]) => make("option", { value }, name)));
    return [make("label", {}, make("span", {}, text), select), select];
}

function draw() {
    const texts = run.texts, parts = (run.parts = {});
    parts.said = make("p", { class: "said", role: "status" });
    parts.bar = make("progress", { max: run.total || 1, value: 0, "aria-label": texts.progress });
    parts.cancel = button(texts.cancel, cancel, { class: "cancel" });
    parts.again = button(texts.go_on, goOn, { class: "again", hidden: true });
    parts.notes = make("div", { class: "notes", role: "alert" }, ...run.notes.map((note) => make("p", {}, note)));
    parts.counts = make("ul", { class: "counts", "aria-label": texts.counts });

    parts.search = make("input", { type: "search", oninput: arrange, "aria-label": texts.search });
    const [label, labels] = choice(texts.only_label, [["", texts.any_label]], arrange);
    const kinds = ["doubt", "likely", "sure", "unreadable"].map((kind) => [kind, texts[`only_${kind}`]]);
    const [only, verdicts] = choice(texts.only, [["", texts.everything], ...kinds], arrange);
    [parts.labels, parts.verdicts] = [labels, verdicts];
    const download = button(texts.download, save, { class: "download" });
    const tools = make("div", { class: "tools" },
        make("label", {}, make("span", {}, texts.search), parts.search), label, only, download);

    parts.shown = make("p", { class: "shown", role: "status" });
    parts.heads = Object.fromEntries(COLUMNS.map((name) => [name, head(name)]));
    parts.body = make("tbody", { onclick: (event) => open(event.target.closest("tr")?.row) });
    const table = make("table", {}, make("caption", {}, texts.caption),
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, texts.picture), ...Object.values(parts.heads))),
        parts.body);
    const box = make("div", { class: "box", role: "region", tabindex: "0", "aria-label": texts.caption }, table);
    parts.rest = make("div", { class: "rest", hidden: true },
        parts.counts, tools, parts.shown, box, make("p", { class: "meaning" }, texts.meaning));

    run.dialog = dialog();
    element.querySelector(".many").replaceChildren(
        make("div", { class: "work" }, parts.said, make("div", {}, parts.bar, parts.cancel, parts.again)),
        parts.notes, parts.rest, run.dialog);
    parts.said.parentElement.hidden = !run.total;
    say();
}

function head(name) {
    const sort = () => {
        run.sort = { by: name, down: run.sort.by === name && !run.sort.down };
        arrange();
    };
    return make("th", { scope: "col", class: name }, button(run.texts[name], sort));
}

function line(row) {
    const texts = run.texts, name = make("th", { scope: "row", class: "file", title: row.file }, make("span", {}, row.file));
    const made = row.error !== undefined
        ? make("tr", { class: "unreadable" }, make("td", {}), name, // hub speaks English, as in the CSV
            make("td", { colspan: "4", lang: "en" }, make("span", {}, row.error)))
        : make("tr", {},
            make("td", {}, button(
                make("img", { src: row.thumbnail, alt: "", loading: "lazy", width: 48, height: 48 }), null,
                { "aria-label": fill(texts.open, row) })),
            name, make("td", {}, row.label), make("td", { class: row.verdict }, make("span", {}, texts[row.verdict])),
            make("td", { class: "number" }, row.share), make("td", { class: "number" }, row.difference));
    made.row = row;
    return made;
}

function say() {
    const { done, total, texts, parts, began, over } = run;
    parts.bar.value = done;
    parts.bar.hidden = over;
    parts.rest.hidden = !run.rows.length;
    let text = over ? run.ending : done ? texts.working : texts.waiting;
    if (!over && done) {
        const left = ((performance.now() - began) / 1000 / done) * (total - done);
        const [unit, n] = left > 90 ? [texts.minutes, left / 60] : [texts.seconds, left];
        text += `, ${fill(unit, { n: Math.ceil(n) })}`;
    }
    parts.said.textContent = fill(text, { done, total });
}

function count() {
    const found = new Map();
    const raise = (name) => found.set(name, (found.get(name) ?? 0) + 1);
    for (const row of run.rows) if (row.error === undefined) raise(row.label);
    const labels = [...found].sort((one, other) => other[1] - one[1]);
    const rest = labels.splice(MOST_LABELS).reduce((sum, [, number]) => sum + number, 0);
    const doubtful = run.rows.filter((row) => row.verdict === "doubt").length;
    const unreadable = run.rows.filter((row) => row.error !== undefined).length;
    const items = [...labels];
    if (rest) items.push([run.texts.others, rest]);
    items.push([run.texts.doubt, doubtful, "doubt"]);
    if (unreadable) items.push([run.texts.unreadable, unreadable, "unreadable"]);
    run.parts.counts.replaceChildren(...items.map(([name, number, kind = "label"]) =>
        make("li", { class: kind }, make("b", {}, String(number)), ` ${name}`)));
}

function offerLabels() {
    const known = new Set([...run.parts.labels.options].map((option) => option.value));
    const found = new Set(run.rows.filter((row) => row.error === undefined).map((row) => row.label));
    for (const label of found) if (!known.has(label)) run.parts.labels.append(make("option", { value: label }, label));
}

// ---------------------------------------------------------------- sorting and filtering

function compare(one, other) {
    const { by, down } = run.sort;
    if (by !== "file" && (one.error === undefined) !== (other.error === undefined))
        return one.error === undefined ? 1 : -1; // unreadable ones on top, whichever way
    let order = 0;
    if (by === "file" || one.error !== undefined) order = run.collator.compare(one.file, other.file);
    else if (by === "label") order = run.collator.compare(one.label, other.label);
    else order = (by === "verdict" ? RANK[one.verdict] - RANK[other.verdict] : one[by] - other[by]);
    return (down ? -order : order) || (one.margin ?? 0) - (other.margin ?? 0) || one.number - other.number;
}

function wanted(row) {
    const { search, labels, verdicts } = run.parts;
    const kind = row.error === undefined ? row.verdict : "unreadable";
    return row.file.toLowerCase().includes(search.value.trim().toLowerCase())
        && (!labels.value || (row.error === undefined && row.label === labels.value))
        && (!verdicts.value || kind === verdicts.value);
}

function arrange() {
    const { parts, texts, sort } = run;
    for (const [name, head] of Object.entries(parts.heads))
        if (name === sort.by) head.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
    run.visible = run.rows.filter(wanted).sort(compare);
    parts.body.replaceChildren(...run.visible.map((row) => row.line));
    parts.shown.textContent = fill(texts.shown, { shown: run.visible.length, total: run.rows.length });
}

function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([run.csv], { type: "text/csv" }));
    link.download = "answers.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---------------------------------------------------------------- a row's picture, larger

function dialog() {
    const texts = run.texts, parts = (run.view = {});
    parts.name = make("h2", {});
    parts.photo = make("img", { class: "photo" });
    parts.map = make("img", { class: "map" });
    const stage = make("div", { class: "stage" }, parts.photo, parts.map);
    parts.photo.addEventListener("load", () =>
        stage.style.setProperty("--ratio", parts.photo.naturalWidth / parts.photo.naturalHeight));
    parts.opacity = make("input", { type: "range", min: "0", max: "1", step: "0.05", value: "0.65", "aria-label": texts.opacity });
    parts.opacity.addEventListener("input", () => (parts.map.style.opacity = parts.opacity.value));
    parts.opaque = make("label", { class: "opacity", hidden: !run.maps }, make("span", {}, texts.opacity), parts.opacity);
    parts.colours = make("p", {});
    parts.shares = make("ul", { "aria-label": texts.shares });
    parts.previous = button(texts.previous, () => move(-1));
    parts.next = button(texts.next, () => move(1));
    const made = make("dialog", {}, parts.name, stage,
        parts.shares, parts.colours, parts.opaque,
        make("div", { class: "buttons" }, parts.previous, parts.next, button(texts.close, () => made.close(), { class: "close" })));
    made.addEventListener("keydown", (event) => {
        if (event.target === parts.opacity) return;
        if (event.key === "ArrowLeft") move(-1);
        if (event.key === "ArrowRight") move(1);
    });
    made.addEventListener("click", (event) => event.target === made && made.close()); // beside it
    made.addEventListener("close", () => run.open?.line.querySelector("button")?.focus());
    return made;
}

function readable() {
    return run.visible.filter((row) => row.error === undefined);
}

function open(row) {
    if (!row || row.error !== undefined) return;
    const { texts, view } = run;
    run.open = row;
    view.name.textContent = row.file;
    view.photo.src = row.picture;
    view.photo.alt = fill(texts.photo, row);
    view.map.hidden = !row.map;
    if (row.map) view.map.src = row.map;
    view.map.alt = row.map ? row.colours : "";
    view.map.style.opacity = view.opacity.value;
    view.colours.textContent = row.map ? row.colours : texts.no_map;
    view.shares.replaceChildren(...row.shares.map(([label, share]) =>
        make("li", {}, make("span", {}, label), make("b", {}, share))));
    const place = readable().indexOf(row);
    view.previous.disabled = place <= 0;
    view.next.disabled = place < 0 || place === readable().length - 1;
    if (!run.dialog.open) run.dialog.showModal();
}

function move(step) {
    const place = readable().indexOf(run.open);
    if (place >= 0) open(readable()[place + step]);
}
