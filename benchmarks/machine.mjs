// Where and on what a run was made, without the machine's name.
import { spawnSync } from 'node:child_process'
import { readFileSync, statfsSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { versionOf } from './programs.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

export function machine(directory) {
  return {
    cores: availableParallelism(),
    cpu: cpus()[0]?.model ?? 'unknown',
    kernel: release(),
    memory_gib: Math.round(totalmem() / 2 ** 30),
    file_system: fileSystemOf(directory),
    load_before: Math.round(loadavg()[0] * 100) / 100,
  }
}

/** `fio`: the program that the run takes. */
export function versions(fio) {
  return { node: process.version, fio: versionOf(fio), nbdkit: versionOf('nbdkit'), tgtd: versionOf('tgtd') }
}

/** With a mark where the working tree is not what was committed. */
export function commit() {
  const head = git('rev-parse', '--short=12', 'HEAD')
  if (head === null) return 'unknown'
  return git('status', '--porcelain', '--untracked-files=no') === '' ? head : `${head}-dirty`
}

function git(...args) {
  const { status, stdout } = spawnSync('git', args, { cwd: root, encoding: 'utf8' })
  return status === 0 ? stdout.trim() : null
}

/** The type of the longest mount point above. */
function fileSystemOf(directory) {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, point]) => point !== undefined && `${directory}/`.startsWith(point === '/' ? '/' : `${point}/`))
    .sort(([, one], [, other]) => other.length - one.length)
  return mounts[0]?.[2] ?? 'unknown'
}

export function freeBytes(directory) {
  const { bavail, bsize } = statfsSync(directory)
  return bavail * bsize
}
