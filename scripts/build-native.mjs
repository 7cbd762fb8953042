// Builds the addon, build/Release/ankole.node. Says what is missing and how to get it.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { availableParallelism } from 'node:os'
import process from 'node:process'
import { nodeGyp, nodeHeaders, requireToolchain, root, works } from './toolchain.mjs'

requireToolchain()
const gyp = nodeGyp()
const liburing = works(
  'g++',
  ['-x', 'c++', '-', '-o', '/dev/null', '-l:liburing.a'],
  '#include <liburing.h>\nint main(){return 0;}',
)
if (!liburing) {
  console.log('ankole: liburing is not installed (Debian: liburing-dev); building without the io_uring back end.')
}

const jobs = availableParallelism()
const core = spawnSync('make', ['-s', '-C', join(root, 'native'), `-j${jobs}`, 'core'], { stdio: 'inherit' })
if (core.status !== 0) process.exit(core.status ?? 1)

// A rebuild only where there is none to bring up to date.
const command = existsSync(join(root, 'build', 'Makefile')) ? 'build' : 'rebuild'
const options = ['--silent', `--liburing=${liburing ? 'yes' : 'no'}`, ...nodeHeaders()]

function run(...args) {
  const env = { ...process.env, MAKEFLAGS: '-s' }
  const { status } = spawnSync(process.execPath, [gyp, ...args, ...options], { cwd: root, stdio: 'inherit', env })
  if (status !== 0) process.exit(status ?? 1)
}

// Sources and options may have changed since.
if (command === 'build') run('configure')
run(command, `--jobs=${jobs}`)
