// Lints native/ and test/model/: clang-format, clang-tidy (native/.clang-tidy), and that it compiles without liburing.
// `npm run lint:native [-- FILE…]`: these files only, each by itself. What is not installed is said and left out.
import { spawn, spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, relative } from 'node:path'
import process from 'node:process'
import { root, works } from './toolchain.mjs'

const standard = ['-std=c++20', '-fno-exceptions', '-fno-rtti', '-Inative', '-Wall', '-Wextra']

function sources() {
  return ['native', 'test/model']
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true }).map((name) => join(folder, name)))
    .filter((name) => /\.(h|cc)$/.test(name) && !name.startsWith('native/build/'))
    .sort()
}

/** Headers of Node.js and of node-addon-api are not ours: no warnings about them. */
function flagsOf(file) {
  if (!file.startsWith('native/napi/')) return standard
  const addonApi = createRequire(join(root, 'package.json'))('node-addon-api').include_dir
  const node = join(dirname(dirname(process.execPath)), 'include', 'node')
  const defines = ['NAPI_VERSION=8', 'NAPI_DISABLE_CPP_EXCEPTIONS', 'NODE_ADDON_API_DISABLE_DEPRECATED']
  const included = [node, addonApi.replaceAll('"', '')].flatMap((directory) => ['-isystem', directory])
  return [...standard, ...included, ...defines.map((define) => `-D${define}`), '-DANKOLE_VERSION="lint"']
}

function hasLiburing() {
  return works('g++', ['-x', 'c++', '-fsyntax-only', '-'], '#include <liburing.h>\n')
}

function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (text += data))
    child.once('error', (error) => resolve({ good: false, text: error.message }))
    child.once('close', (code) => resolve({ good: code === 0, text }))
  })
}

let failed = 0
async function check(what, tasks) {
  const started = Date.now()
  const queue = [...tasks]
  let bad = 0
  async function lane() {
    for (let task = queue.shift(); task; task = queue.shift()) {
      const { good, text } = await run(...task)
      if (good) continue
      ++bad
      console.log(text.replaceAll(/^\d+ warnings? (?:generated|treated as errors?).*\n/gm, '').trimEnd())
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, lane))
  failed += bad
  const seconds = Math.round((Date.now() - started) / 1000)
  console.log(
    `${what}: ${tasks.length} ${tasks.length === 1 ? 'run' : 'runs'}, ${bad === 0 ? 'clean' : `${bad} with findings`} (${seconds} s)`,
  )
}

function missing(tool) {
  if (works(tool, ['--version'])) return false
  console.log(`${tool}: left out, it is not installed (Debian: apt-get install ${tool})`)
  return true
}

const asked = process.argv.slice(2).map((file) => relative(root, file))
const files = asked.length > 0 ? asked : sources()

if (!missing('clang-format')) {
  await check(
    'clang-format',
    files.map((file) => ['clang-format', ['--dry-run', '-Werror', file]]),
  )
}

// The analyzer gives up on a function earlier than by default, which saves half of all the time.
const analyzer = ['-Xclang', '-analyzer-config', '-Xclang', 'max-nodes=40000']
// Tests are left to the compiler, or it takes twice as long.
const compiled = files.filter((file) => /(?<!_test|_testing|_fuzz)\.cc$/.test(file) && !file.endsWith('/test_main.cc'))

/** As they are compiled, by the chunk: it takes a third of the time. */
function chunksOf(files) {
  const native = join(root, 'native')
  const inChunks = files.map((file) => relative('native', file))
  const made = spawnSync('./chunks.sh', ['build/lint', '16', ...inChunks], { cwd: native, encoding: 'utf8' })
  if (made.status !== 0) throw new Error(`native/chunks.sh failed: ${made.stderr}`)
  return made.stdout.trim().split('\n')
}

function tidyTasks() {
  const define = hasLiburing() ? ['-DANKOLE_HAVE_LIBURING=1'] : []
  const alone = (file) => ['clang-tidy', ['--quiet', file, '--', ...flagsOf(file), ...define, ...analyzer]]
  const together = (chunk) => [
    'clang-tidy',
    ['--quiet', '--checks=-bugprone-suspicious-include', join('native', chunk), '--']
      .concat(standard, '-Wno-subobject-linkage', define, analyzer)
      // What is included counts as well.
      .concat('-Xclang', '-analyzer-opt-analyze-headers'),
  ]
  if (asked.length > 0) return compiled.map(alone)
  const isInChunk = (file) => file.startsWith('native/') && !file.startsWith('native/napi/')
  const chunks = chunksOf(compiled.filter(isInChunk))
  // The largest first, so that the cores end together.
  const size = (chunk) => readFileSync(join(root, 'native', chunk), 'utf8').split('\n').length
  chunks.sort((a, b) => size(b) - size(a))
  return [...chunks.map(together), ...compiled.filter((file) => !isInChunk(file)).map(alone)]
}

if (!missing('clang-tidy')) await check('clang-tidy', tidyTasks())

const optional = files.filter(
  (file) => file.endsWith('.cc') && /\bANKOLE_HAVE_LIBURING\b/.test(readFileSync(join(root, file))),
)
await check(
  'without liburing',
  optional.map((file) => ['g++', [...standard, '-Werror', '-fsyntax-only', file]]),
)

process.exitCode = failed === 0 ? 0 : 1
