// Drives the built product with other people's programs.
//
//     npm run test:conformance [-- [--io-backend auto|uring|epoll] [NAME…]]
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const compiled = join(root, 'dist', 'test', 'conformance')
const { values, positionals: wanted } = parseArgs({
  options: { 'io-backend': { type: 'string', default: 'auto' } },
  allowPositionals: true,
})

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
const env = { ...process.env, ANKOLE_TEST_IO_BACKEND: values['io-backend'] }
const { status } = spawnSync(tap, [...options, ...files], { cwd: root, stdio: 'inherit', env })
process.exit(status ?? 1)
