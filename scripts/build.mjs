// Builds all: SQLite, the addon and the TypeScript, at the same time, as the first of them has one long file that takes a minute.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import process from 'node:process'
import { requireToolchain, root } from './toolchain.mjs'

requireToolchain()
const parts = [
  [join('scripts', 'build-sqlite.mjs')],
  [join('scripts', 'build-native.mjs')],
  [join('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json'],
]

function run(args) {
  const child = spawn(process.execPath, args, { cwd: root, stdio: 'inherit' })
  return new Promise((resolve) => child.once('close', (code) => resolve(code ?? 1)))
}

const codes = await Promise.all(parts.map(run))
process.exit(codes.find((code) => code !== 0) ?? 0)
