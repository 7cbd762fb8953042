// The real processes under faults, on machines of their own in network namespaces.
//
//     npm run test:faults [-- [--seed N] [--long] [--figures] [NAME…]]
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const figures = join(root, 'build', 'faults', 'figures.txt')

function parse() {
  try {
    return parseArgs({
      options: {
        seed: { type: 'string', default: '1' },
        long: { type: 'boolean', default: false },
        figures: { type: 'boolean', default: false },
      },
      allowPositionals: true,
    })
  } catch (error) {
    console.error(`faults: ${error.message}`)
    process.exit(2)
  }
}

const { values, positionals: wanted } = parse()
if (!/^\d{1,9}$/.test(values.seed)) {
  console.error(`faults: --seed takes a number of at most nine digits, not ${values.seed}`)
  process.exit(2)
}
const names = readdirSync(join(root, 'test', 'faults'))
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => file.slice(0, -'.test.ts'.length))
const unknown = wanted.filter((name) => !names.includes(name))
if (unknown.length > 0) {
  console.error(`faults: no test is named ${unknown.join(', ')}; there are: ${names.join(', ')}`)
  process.exit(2)
}

// One after another: stalls are measured.
const files = (wanted.length > 0 ? wanted : names).map((name) =>
  join(root, 'dist', 'test', 'faults', `${name}.test.js`),
)
mkdirSync(dirname(figures), { recursive: true })
rmSync(figures, { force: true })
const tap = join(root, 'node_modules', '.bin', 'tap')
const timeout = values.long || values.figures ? 3600 : 240
const options = ['run', '--jobs=1', `--timeout=${timeout}`, '--disable-coverage', '--allow-empty-coverage']
const { status } = spawnSync(tap, [...options, ...files], {
  cwd: root,
  stdio: 'inherit',
  env: {
    ...process.env,
    ANKOLE_FAULTS_SEED: values.seed,
    ANKOLE_FAULTS_LONG: values.long || values.figures ? '1' : '0',
    ANKOLE_FAULTS_FIGURES: values.figures ? '1' : '0',
  },
})
if (existsSync(figures)) {
  console.log(`\n# With seed ${values.seed}:`)
  for (const line of readFileSync(figures, 'utf8').trimEnd().split('\n')) console.log(`#   ${line}`)
}
process.exit(status ?? 1)
