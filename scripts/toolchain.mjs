// What the C++ of this package needs of the machine, and where it is.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import process from 'node:process'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Whether it runs and ends with 0. */
export function works(command, args, input) {
  return spawnSync(command, args, { input, stdio: ['pipe', 'ignore', 'ignore'] }).status === 0
}

/** Ends the process, with what to install, where something is missing. */
export function requireToolchain() {
  const missing = [
    ['g++', 'g++ 12 or newer'],
    ['make', 'make'],
    ['python3', 'python3'],
  ].filter(([command]) => !works(command, ['--version']))
  if (missing.length > 0) {
    console.error(`ankole: cannot build: ${missing.map((tool) => tool[1]).join(', ')} not found.`)
    console.error('  Debian, Ubuntu:  apt-get install g++ make python3')
    console.error('  Fedora, RHEL:    dnf install gcc-c++ make python3')
    process.exit(1)
  }
  if (!works('g++', ['-std=c++20', '-x', 'c++', '-fsyntax-only', '-'], '#include <span>\nint main(){}')) {
    console.error('ankole: cannot build: this g++ knows no C++20; version 12 or newer is needed.')
    process.exit(1)
  }
}

/** The option for node-gyp: headers installed beside the running Node; without them it downloads them. */
export function nodeHeaders() {
  const prefix = dirname(dirname(process.execPath))
  return existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? [`--nodedir=${prefix}`] : []
}

export function nodeGyp() {
  const gyp = join(root, 'node_modules', 'node-gyp', 'bin', 'node-gyp.js')
  if (existsSync(gyp)) return gyp
  console.error('ankole: node-gyp is not installed; run: npm ci')
  process.exit(1)
}
