#!/usr/bin/env node
// Drives the compiler of node_modules (wasm) as if it were a native solc: forge and the artifact builder both call it so.
// Standard JSON in on stdin, out on stdout; imports are looked up below --base-path, --include-path, the project and node_modules.
const fs = require('fs');
const path = require('path');
const solc = require('solc');

const argv = process.argv.slice(2);
if (argv.includes('--version')) {
  const version = solc.version().replace('Emscripten.clang', 'Linux.g++');
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`);
  process.exit(0);
}
const project = path.resolve(__dirname, '..');
const named = argv.flatMap((a, i) => (['--base-path', '--include-path'].includes(a) ? [argv[i + 1]] : []));
const roots = [...named, project, path.join(project, 'node_modules'), process.cwd()];

function find(name) {
  for (const root of roots) {
    const file = path.resolve(root, name);
    if (fs.existsSync(file)) return { contents: fs.readFileSync(file, 'utf8') };
  }
  return { error: `not found: ${name}` };
}
process.stdout.write(solc.compile(fs.readFileSync(0, 'utf8'), { import: find }));
