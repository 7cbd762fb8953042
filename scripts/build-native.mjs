// Builds the addon, build/Release/ankole.node. Says what is missing and how to get it.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { availableParallelism } from 'node:os'
import process from 'node:process'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

function works(command, args, input) {
  return spawnSync(command, args, { input, stdio: ['pipe', 'ignore', 'ignore'] }).status === 0
}

const missing = [
  ['g++', ['--version'], 'g++ 12 or newer'],
  ['make', ['--version'], 'make'],
  ['python3', ['--version'], 'python3'],
].filter(([command, args]) => !works(command, args))
if (missing.length > 0) {
  console.error(`ankole: cannot build the data path: ${missing.map((tool) => tool[2]).join(', ')} not found.`)
  console.error('  Debian, Ubuntu:  apt-get install g++ make python3')
  console.error('  Fedora, RHEL:    dnf install gcc-c++ make python3')
  process.exit(1)
}
if (!works('g++', ['-std=c++20', '-x', 'c++', '-fsyntax-only', '-'], '#include <span>\nint main(){}')) {
  console.error('ankole: cannot build the data path: this g++ knows no C++20; version 12 or newer is needed.')
  process.exit(1)
}

const liburing = works(
  'g++',
  ['-x', 'c++', '-', '-o', '/dev/null', '-l:liburing.a'],
  '#include <liburing.h>\nint main(){return 0;}',
)
if (!liburing) {
  console.log('ankole: liburing is not installed (Debian: liburing-dev); building without the io_uring back end.')
}

const args = ['rebuild', `--jobs=${availableParallelism()}`, '--silent', `--liburing=${liburing ? 'yes' : 'no'}`]
// A rebuild only where there is none to bring up to date.
if (existsSync(join(root, 'build', 'Makefile'))) args.splice(0, 1, 'build')
// Headers that are installed beside the running Node; without them node-gyp downloads them.
const prefix = dirname(dirname(process.execPath))
if (existsSync(join(prefix, 'include', 'node', 'node_api.h'))) args.push(`--nodedir=${prefix}`)

const gyp = join(root, 'node_modules', 'node-gyp', 'bin', 'node-gyp.js')
if (!existsSync(gyp)) {
  console.error('ankole: node-gyp is not installed; run: npm ci')
  process.exit(1)
}
if (args[0] === 'build') {
  // Sources and options may have changed since.
  const configured = spawnSync(process.execPath, [gyp, 'configure', ...args.slice(2)], { cwd: root, stdio: 'inherit' })
  if (configured.status !== 0) process.exit(configured.status ?? 1)
}
const built = spawnSync(process.execPath, [gyp, ...args], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, MAKEFLAGS: '-s' },
})
process.exit(built.status ?? 1)
