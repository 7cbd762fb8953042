// Disks that run full, as small file systems of their own. Nothing of what was acknowledged is lost.

import {
  closeSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { aStoppedAnkole, type LocalAnkole } from './ankole.js'
import { lacks, run, runNow, start } from './tools.js'
import { firstDifference } from './volume.js'

const diskBytes = 112 << 20
const leftBytes = 16 << 20

const skip = await reasonToSkip()

async function reasonToSkip(): Promise<string | false> {
  const missing = lacks('mke2fs', 'mount', 'qemu-io')
  if (missing !== false) return missing
  const directory = mkdtempSync(join(tmpdir(), 'ankole-mount-'))
  try {
    await mountNew(`${directory}.ext4`, directory)
    runNow('umount', [directory])
    return false
  } catch {
    return 'file systems cannot be mounted here: that needs root and loop devices'
  } finally {
    rmSync(`${directory}.ext4`, { force: true })
    rmSync(directory, { recursive: true })
  }
}

/** The disks of an Ankole that is not started yet, each an ext4 of its own. */
async function mountDisks(t: Test, ankole: LocalAnkole): Promise<void> {
  for (const directory of disksOf(ankole)) {
    mkdirSync(directory, { recursive: true })
    await mountNew(`${directory}.ext4`, directory)
    t.teardown(async () => {
      if (ankole.isRunning) await ankole.killAll()
      if (!runNow('umount', [directory])) runNow('umount', ['--lazy', directory])
    })
  }
}

async function mountNew(image: string, directory: string): Promise<void> {
  writeFileSync(image, '')
  truncateSync(image, diskBytes)
  await run('mke2fs', ['-q', '-t', 'ext4', '-b', '4096', '-m', '0', image])
  await run('mount', ['-o', 'loop', image, directory])
}

function disksOf(ankole: LocalAnkole): string[] {
  return [1, 2, 3].map((n) => join(ankole.data, 'disks', `disk-${n}`))
}

/** Somebody else's file takes nearly all that is left. */
function fill(disk: string): void {
  const { bavail, bsize } = statfsSync(disk)
  const file = openSync(ballastOf(disk), 'w')
  const chunk = Buffer.alloc(1 << 20, 1)
  for (let left = bavail * bsize - leftBytes; left > 0; left -= chunk.length) writeSync(file, chunk)
  fsyncSync(file)
  closeSync(file)
}

function ballastOf(disk: string): string {
  return join(disk, 'ballast')
}

const write = ['-c', 'write -P 0x5a 8M 48M', '-c', 'flush']
const readBack = ['-c', 'read -P 0 0 8M', '-c', 'read -P 0x5a 8M 48M', '-c', 'read -P 0 56M 40M']

t.test('one disk is full: its replica leaves, and writing goes on', { skip }, async (t) => {
  const ankole = aStoppedAnkole(t)
  await mountDisks(t, ankole)
  await ankole.start()
  const volume = await ankole.createVolume('squeezed', '96MiB')
  fill(disksOf(ankole)[2]!)
  await run('qemu-io', ['-f', 'raw', ...write, volume.uri])
  const { robustness, replicas } = await volume.view()
  t.equal(robustness, 'degraded')
  const left = replicas.filter(({ state }) => state !== 'member')
  t.match(left, [{ disk: 'disk-3', state: 'left', message: /full|space/ }])
  t.notMatch(await run('qemu-io', ['-f', 'raw', ...readBack, volume.uri]), /failed/)
  await volume.detach()
  const [one, other] = await volume.headFiles(['disk-1', 'disk-2'])
  t.equal(firstDifference(one!, other!), undefined, 'those who stayed are equal')
  t.match(await ankole.interrupt(), { code: 0 })
})

t.test('all disks are full: writes wait, reads do not, and all goes on when there is space', { skip }, async (t) => {
  const ankole = aStoppedAnkole(t)
  await mountDisks(t, ankole)
  await ankole.start()
  const volume = await ankole.createVolume('stuck', '96MiB')
  await run('qemu-io', ['-f', 'raw', '-c', 'write -P 0x77 0 4M', '-c', 'flush', volume.uri])
  for (const disk of disksOf(ankole)) fill(disk)
  const writing = start('qemu-io', ['-f', 'raw', ...write, volume.uri])
  const { message } = await ankole.until('stuck', 'out of space', (view) => /space/.test(view.message))
  t.comment(message)
  t.ok(writing.isRunning, 'the write waits and does not fail')
  t.match((await volume.view()).replicas, [{ state: 'member' }, { state: 'member' }, { state: 'member' }])
  t.notMatch(await run('qemu-io', ['-f', 'raw', '-c', 'read -P 0x77 0 4M', volume.uri]), /failed/, 'reads go on')
  for (const disk of disksOf(ankole)) rmSync(ballastOf(disk))
  await writing.succeeded()
  await volume.healthy()
  const [, ...rest] = readBack.filter((word) => word !== '-c')
  const answers = await run('qemu-io', ['-f', 'raw', ...rest.flatMap((read) => ['-c', read]), volume.uri])
  t.notMatch(answers, /failed/, 'what waited is written')
  await volume.endsEqual(t)
  t.match(await ankole.interrupt(), { code: 0 })
})
