// Drives the built product with other people's programs. `npm run test:conformance [-- NAME…]` runs all, or those named.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const compiled = join(root, 'dist', 'test', 'conformance')
const wanted = process.argv.slice(2)

const names = readdirSync(join(root, 'test', 'conformance'))
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => file.slice(0, -'.test.ts'.length))
const unknown = wanted.filter((name) => !names.includes(name))
if (unknown.length > 0) {
  console.error(`conformance: no test is named ${unknown.join(', ')}; there are: ${names.join(', ')}`)
  process.exit(2)
}

// One after another: each has its own Ankole, and they would only slow each other down.
const files = (wanted.length > 0 ? wanted : names).map((name) => join(compiled, `${name}.test.js`))
const tap = join(root, 'node_modules', '.bin', 'tap')
const options = ['run', '--jobs=1', '--timeout=240', '--disable-coverage', '--allow-empty-coverage']
const { status } = spawnSync(tap, [...options, ...files], { cwd: root, stdio: 'inherit' })
process.exit(status ?? 1)
