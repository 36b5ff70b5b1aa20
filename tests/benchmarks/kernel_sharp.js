// sharp as a competitor of kernel.py: the same conversation as kernel_peers.py, on Node.
const fs = require("fs");
const path = require("path");
const readline = require("readline");
const sharp = require("sharp");

sharp.cache(false); // the same picture comes again and again
sharp.concurrency(1);

const transform = (data) =>
  sharp(data)
    .resize(800, 600, { fit: "fill" })
    .jpeg({ quality: 80, chromaSubsampling: "4:2:0", optimiseCoding: true })
    .toBuffer();

async function main() {
  console.log(`sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}`);
  const pictures = {};
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const task = JSON.parse(line);
    for (const name of task.pictures) pictures[name] ??= fs.readFileSync(name);
    const begin = process.cpuUsage();
    for (let i = 0; i < task.repeat; i++) {
      for (const name of task.pictures) {
        const output = await transform(pictures[name]);
        if (task.folder) fs.writeFileSync(path.join(task.folder, path.basename(name)), output);
      }
    }
    const took = process.cpuUsage(begin);
    console.log((took.user + took.system) / 1e6);
  }
}

main();
