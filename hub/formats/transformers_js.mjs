// The process that runs transformers.js: node transformers_js.mjs WHERE FOLDER TENSORS FILES OUT
// WHERE has node_modules/@huggingface/transformers, TENSORS is .npy (uint8, N × S × S × 3), FILES a JSON list of paths.
// In OUT it leaves logits.f32 and evidence.f32 of the tensors, and answers.json: shapes, probabilities of the files.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";

const [where, folder, tensors, files, out] = process.argv.slice(2);
// Not `import`: that looks for packages beside this file, wherever it is told to look.
const require = createRequire(join(where, "anywhere.js"));
const { env, pipeline, Tensor } = require("@huggingface/transformers");
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);

const BATCH = 32;
const read = (name) => JSON.parse(readFileSync(name, "utf-8"));
const labels = Object.values(read(join(folder, "config.json")).id2label);
const classify = await pipeline("image-classification", basename(folder), { dtype: "fp32" });

// The pipeline's model drops every output but logits; the session that it asks keeps them.
async function forward(pixels, count, size) {
    const plane = size * size;
    const values = new Float32Array(pixels.length);
    for (let at = 0; at < pixels.length; at++) {
        const photo = Math.floor(at / (3 * plane));
        const cell = Math.floor(at / 3) % plane;
        values[(3 * photo + (at % 3)) * plane + cell] = Math.fround(pixels[at] / 127.5) - 1;
    }
    const pixel_values = new Tensor("float32", values, [count, 3, size, size]);
    return classify.model.sessions.model.run({ pixel_values: pixel_values.ort_tensor });
}

const npy = readFileSync(tensors);
const start = 10 + npy.readUInt16LE(8); // https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
const [total, size] = npy.toString("latin1", 10, start).match(/'shape': \(([^)]*)\)/)[1].split(",").map(Number);
const parts = { logits: [], evidence: [] };
const shapes = {};
for (let first = 0; first < total; first += BATCH) {
    const count = Math.min(BATCH, total - first);
    const from = start + first * size * size * 3;
    const answer = await forward(npy.subarray(from, from + count * size * size * 3), count, size);
    for (const [name, tensor] of Object.entries(answer)) {
        parts[name].push(Float32Array.from(tensor.data));
        shapes[name] = [total, ...tensor.dims.slice(1)];
    }
}
for (const name of Object.keys(shapes)) {
    writeFileSync(join(out, `${name}.f32`), Buffer.concat(parts[name].map((part) => Buffer.from(part.buffer))));
}

const probabilities = [];
for (const path of read(files)) {
    const answers = await classify(path, { top_k: labels.length }).catch(() => []); // no picture to it
    const scores = Object.fromEntries(answers.map(({ label, score }) => [label, score]));
    probabilities.push(labels.map((label) => scores[label] ?? null));
}
const versions = { "@huggingface/transformers": env.version, node: process.versions.node };
writeFileSync(join(out, "answers.json"), JSON.stringify({ shapes, files: probabilities, versions }));
