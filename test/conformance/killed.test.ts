// SIGKILL in the middle of writing: an engine, `ankole up`, everything at once. What was flushed is there afterwards.

import t from 'tap'
import { anAnkole, sleep, type LocalAnkole } from './ankole.js'
import { StampedWrites } from './stamped-writes.js'
import type { Volume } from './volume.js'

const blocks = 1500
const writeMs = 1_500

interface Blow {
  title: string
  fall: (ankole: LocalAnkole, volume: Volume) => Promise<void>
}

const blows: readonly Blow[] = [
  {
    title: 'an engine is killed: it is started again, at the same address',
    fall: async (ankole, volume) => {
      const pid = (await ankole.enginePid(volume.name))!
      process.kill(pid, 'SIGKILL')
      while ([pid, undefined].includes(await ankole.enginePid(volume.name))) await sleep(50)
    },
  },
  {
    title: 'ankole up alone is killed and at once started again: the processes it left make room',
    fall: async (ankole) => {
      await ankole.killManager()
      await ankole.start()
    },
  },
  {
    title: 'everything is killed at once and started again',
    fall: async (ankole) => {
      await ankole.killAll()
      await ankole.start()
    },
  },
]

for (const { title, fall } of blows) {
  t.test(title, async (t) => {
    const ankole = await anAnkole(t)
    const volume = await ankole.createVolume('killed', '64MiB')
    const address = volume.uri
    const writes = new StampedWrites(volume, blocks)
    for (let round = 1; round <= 2; round++) {
      const broken = writes.untilBroken()
      await sleep(writeMs)
      await fall(ankole, volume)
      const error = await broken
      t.comment(`round ${round}: ${writes.writes} writes, ${writes.flushes} flushes, then: ${error.message}`)
      t.ok(writes.flushes > 0, 'some of it was flushed')
      await volume.healthy()
      await volume.attach()
      t.equal(volume.uri, address, 'served where it was')
      await writes.check(t)
    }
    t.match(await ankole.interrupt(), { code: 0 })
  })
}
