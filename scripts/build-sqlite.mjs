// Gets better-sqlite3, the store's database, ready to load. `npm ci` runs no scripts of packages here (.npmrc), so that
// it needs no compiler and cannot end in the middle of one's output; this is the one package that has something to build.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { availableParallelism } from 'node:os'
import process from 'node:process'
import { nodeGyp, nodeHeaders, requireToolchain, root, works } from './toolchain.mjs'

const directory = join(root, 'node_modules', 'better-sqlite3')
const downloadLimitMs = 30_000

function loads() {
  return works(process.execPath, ['-e', `new (require(${JSON.stringify(directory)}))(':memory:').close()`])
}

/** What its authors have built for this version of Node, from where they publish it. */
function download() {
  const program = createRequire(join(directory, 'package.json')).resolve('prebuild-install/bin.js')
  spawnSync(process.execPath, [program], { cwd: directory, stdio: 'ignore', timeout: downloadLimitMs })
}

function compile() {
  requireToolchain()
  console.log('ankole: compiling SQLite, once; it takes a minute.')
  const args = ['rebuild', '--release', `--jobs=${availableParallelism()}`, '--silent', ...nodeHeaders()]
  const env = { ...process.env, MAKEFLAGS: '-s' }
  const { status } = spawnSync(process.execPath, [nodeGyp(), ...args], { cwd: directory, stdio: 'inherit', env })
  if (status !== 0) process.exit(status ?? 1)
}

if (!existsSync(directory)) {
  console.error('ankole: the packages are not installed; run: npm ci')
  process.exit(1)
}
if (!loads()) download()
if (!loads()) compile()
if (!loads()) {
  console.error(`ankole: better-sqlite3 was built and does not load; see: node -p "require('better-sqlite3')"`)
  process.exit(1)
}
