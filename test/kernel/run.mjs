// A Linux kernel, in QEMU, uses volumes of the built product.
//
//     npm run test:kernel [-- NAME…]
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const wanted = process.argv.slice(2)
const names = readdirSync(join(root, 'test', 'kernel'))
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => file.slice(0, -'.test.ts'.length))
const unknown = wanted.filter((name) => !names.includes(name))
if (unknown.length > 0) {
  console.error(`kernel: no test is named ${unknown.join(', ')}; there are: ${names.join(', ')}`)
  process.exit(2)
}

// One after another: an emulated machine keeps two cores busy.
const files = (wanted.length > 0 ? wanted : names).map((name) =>
  join(root, 'dist', 'test', 'kernel', `${name}.test.js`),
)
const tap = join(root, 'node_modules', '.bin', 'tap')
const options = ['run', '--jobs=1', '--timeout=600', '--disable-coverage', '--allow-empty-coverage']
const { status } = spawnSync(tap, [...options, ...files], { cwd: root, stdio: 'inherit' })
process.exit(status ?? 1)
