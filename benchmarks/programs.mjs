// The programs that a run needs, and how they are run.
import { spawn, spawnSync } from 'node:child_process'

const packages = {
  ...{ fio: 'fio', nbdkit: 'nbdkit', tgtd: 'tgt', tgtadm: 'tgt', perf: 'linux-perf' },
  ...{ fincore: 'util-linux', dd: 'coreutils', sync: 'coreutils' },
}

export function versionOf(program) {
  const { status, stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' })
  return status === 0 ? stdout.split('\n', 1)[0].trim() : null
}

export function missing(programs) {
  return programs
    .filter((program) => versionOf(program) === null)
    .map((program) => `${program} (Debian: apt-get install ${packages[program]})`)
}

const running = new Set()
let interrupted = false

/** Ends what runs, and lets nothing new begin: the run unwinds, and takes down what it has put up. */
export function interrupt() {
  interrupted = true
  for (const child of running) child.kill('SIGTERM')
}

/** Resolves with what it printed; rejects unless it ended with code 0. */
export function run(program, args, { env = {}, cwd } = {}) {
  if (interrupted) return Promise.reject(new Error('interrupted'))
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: { ...process.env, ...env }, cwd, stdio: ['ignore', 'pipe', 'pipe'] })
    running.add(child)
    const out = []
    const err = []
    child.stdout.on('data', (data) => out.push(data))
    child.stderr.on('data', (data) => err.push(data))
    child.once('error', reject)
    child.once('close', (code, signal) => {
      running.delete(child)
      if (interrupted) return reject(new Error('interrupted'))
      const [stdout, stderr] = [Buffer.concat(out).toString(), Buffer.concat(err).toString()]
      if (code === 0) return resolve(stdout)
      reject(new Error(`${program} ${args.join(' ')} ended with ${code ?? signal}\n${stdout}\n${stderr}`))
    })
  })
}
