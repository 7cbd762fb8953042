// Ctrl-C, and what is there after it.

import { join } from 'node:path'
import t from 'tap'
import { aDirectory, aStoppedAnkole, anAnkole, sleep } from './ankole.js'
import { aRawImage } from './images.js'
import { StampedWrites } from './stamped-writes.js'
import { lacks, run, start } from './tools.js'
import { firstDifference } from './volume.js'

const stopMsMax = 5_000

t.test('Ctrl-C under load: clean, in under 5 s, and what was flushed is back', { skip: lacks('fio') }, async (t) => {
  const ankole = await anAnkole(t)
  const volume = await ankole.createVolume('busy', '256MiB')
  const writes = new StampedWrites(volume, 500)
  const job = ['--name=load', '--ioengine=nbd', '--rw=randwrite', '--bs=16k', '--iodepth=32', '--offset=64M']
  const load = start('fio', [...job, '--size=192M', '--time_based', '--runtime=60', `--uri=${volume.uri}`])
  const broken = writes.untilBroken()
  await sleep(2_500)
  t.ok(load.isRunning)
  const { code, tookMs } = await ankole.interrupt()
  t.equal(code, 0, 'exit code 0')
  t.ok(tookMs < stopMsMax, `stopped in ${Math.round(tookMs)} ms`)
  t.strictSame(ankole.processesLeft(), [], 'no process is left')
  load.child.kill('SIGKILL')
  await Promise.all([load.ended, broken])

  await ankole.start()
  t.equal((await volume.healthy()).attachment, 2)
  await volume.attach()
  await writes.check(t)
  await volume.endsEqual(t)
})

t.test('stopped and started three times: everything is back', { skip: lacks('nbdcopy') }, async (t) => {
  const directory = aDirectory(t)
  const ankole = aStoppedAnkole(t)
  await ankole.start()
  const image = aRawImage(join(directory, 'image'), 96 << 20)
  const kept = await ankole.createVolume('kept', '96MiB')
  const resting = await ankole.createVolume('resting', '32MiB')
  await run('nbdcopy', [image, kept.uri]) // nothing flushes it but the stop
  await resting.detach()
  const { uri } = kept
  const before = await kept.view()
  for (let round = 1; round <= 3; round++) {
    t.match(await ankole.interrupt(), { code: 0 })
    await ankole.start()
    const { attachment, replicas } = await kept.healthy()
    t.equal(attachment, 1 + round)
    t.strictSame(
      replicas.map(({ id, disk, directory }) => ({ id, disk, directory })),
      before.replicas.map(({ id, disk, directory }) => ({ id, disk, directory })),
    )
    t.equal((await resting.view()).state, 'detached', 'what was detached stays so')
    await kept.attach()
    t.equal(kept.uri, uri)
    const back = join(directory, 'back')
    await run('nbdcopy', [kept.uri, back])
    t.equal(firstDifference(image, back), undefined, 'with its data')
  }
  await kept.endsEqual(t, image)
})

t.test('a disk host that hangs for longer than the grace time: the volume goes on without it', async (t) => {
  const ankole = await anAnkole(t, { grace: '1s' })
  const volume = await ankole.createVolume('degraded', '64MiB')
  const writes = new StampedWrites(volume, 500)
  const broken = writes.untilBroken()
  const pid = await ankole.diskHostPid('disk-3')
  process.kill(pid, 'SIGSTOP')
  await ankole.until('degraded', 'degraded', ({ robustness }) => robustness === 'degraded')
  const flushes = writes.flushes
  for (let waits = 0; waits < 200 && writes.flushes === flushes; waits++) await sleep(50)
  t.ok(writes.flushes > flushes, 'writes and flushes go on')
  const without = await volume.view()
  t.equal(without.replicas.filter(({ state }) => state === 'member').length, 2)
  process.kill(pid, 'SIGCONT')
  const back = await volume.healthy()
  t.ok(back.generation > without.generation, 'it is back, as a member of a later generation')
  t.match(await ankole.interrupt(), { code: 0 })
  await broken

  await ankole.start()
  await volume.healthy()
  await volume.attach()
  await writes.check(t)
  await volume.endsEqual(t)
})
