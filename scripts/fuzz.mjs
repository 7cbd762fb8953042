// Runs every fuzzer on its kept corpus, two side by side: `npm run test:fuzz [-- --seconds=60] [NAME…]`.
//
// A fuzzer is native/MODULE/NAME_fuzz.cc, its corpus native/MODULE/corpus/NAME. What is found goes to a temporary
// directory, never into the tree; what broke a parser is kept in native/build/fuzz/found.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import process from 'node:process'
import { root, works } from './toolchain.mjs'

const native = join(root, 'native')
const binaries = join(native, 'build', 'fuzz', 'fuzz')
const found = join(native, 'build', 'fuzz', 'found')
const sideBySide = 2

function fuzzers() {
  return readdirSync(native, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== 'build')
    .flatMap(({ name: module }) =>
      readdirSync(join(native, module))
        .filter((file) => file.endsWith('_fuzz.cc'))
        .map((file) => `${module}/${file.slice(0, -'_fuzz.cc'.length)}`),
    )
}

const options = process.argv.slice(2)
const seconds = Number(options.find((option) => option.startsWith('--seconds='))?.slice('--seconds='.length) ?? 60)
if (!Number.isInteger(seconds) || seconds < 1) {
  console.error('fuzz: --seconds takes a whole number from 1')
  process.exit(2)
}
const asked = options.filter((option) => !option.startsWith('--'))
const all = fuzzers()
const unknown = asked.filter((name) => !all.includes(name))
if (unknown.length > 0) {
  console.error(`fuzz: no fuzzer is named ${unknown.join(', ')}; there are: ${all.join(', ')}`)
  process.exit(2)
}
const wanted = asked.length > 0 ? asked : all

const program = 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'
if (!works('clang++', ['-fsanitize=fuzzer,address', '-x', 'c++', '-', '-o', '/dev/null'], program)) {
  for (const name of wanted) {
    console.log(`skip ${name}: clang with libFuzzer is not installed (Debian: clang libclang-rt-14-dev)`)
  }
  console.log(`fuzz: 0 passed, 0 failed, ${wanted.length} skipped`)
  process.exit(0)
}

const made = spawnSync('make', ['-C', native, `-j${availableParallelism()}`, 'fuzz'], { stdio: 'inherit' })
if (made.status !== 0) process.exit(made.status ?? 1)

mkdirSync(found, { recursive: true })
const scratch = mkdtempSync(join(tmpdir(), 'ankole-fuzz-'))
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130))

function fuzz(name) {
  const corpus = join(native, name.replace('/', '/corpus/'))
  const finds = join(scratch, name.replace('/', '-'))
  mkdirSync(finds)
  const args = [
    `-max_total_time=${seconds}`,
    '-print_final_stats=1',
    '-verbosity=1',
    '-timeout=10',
    '-rss_limit_mb=2048',
  ]
  args.push(`-artifact_prefix=${join(found, name.replace('/', '-'))}-`, finds)
  if (existsSync(corpus)) args.push(corpus)
  const child = spawn(join(binaries, name), args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let text = ''
  child.stderr.on('data', (data) => {
    text = (text + data).slice(-20_000)
  })
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ name, code: 1, text: error.message }))
    child.once('close', (code) => resolve({ name, code: code ?? 1, text, seeds: corpus, finds }))
  })
}

let passed = 0
function report({ name, code, text, seeds, finds }) {
  const runs = /stat::number_of_executed_units: +(\d+)/.exec(text)?.[1]
  if (code === 0 && runs !== undefined) {
    ++passed
    const kept = existsSync(seeds) ? readdirSync(seeds).length : 0
    console.log(`ok ${name} (${runs} runs in ${seconds} s, ${kept} inputs kept, ${readdirSync(finds).length} new)`)
    return
  }
  console.log(text)
  console.log(`what broke it is in ${relative(root, found)}`)
  console.log(`not ok ${name}`)
}

const queue = [...wanted]
async function lane() {
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) report(await fuzz(name))
}
await Promise.all(Array.from({ length: sideBySide }, lane))
console.log(`fuzz: ${passed} passed, ${wanted.length - passed} failed`)
process.exitCode = passed === wanted.length ? 0 : 1
