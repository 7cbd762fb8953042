// What happens to Ankole while a client works. The client is not to notice.

import type { Test } from 'tap'
import { sleep } from './ankole.js'
import type { Running } from './tools.js'
import type { Volume } from './volume.js'

export interface Work {
  volume: Volume
  client: () => Running
  /** The blow falls when the client has written so much. */
  afterBytes: number
}

export interface Strike {
  title: string
  /** Starts the client, and resolves when it has ended and Ankole is whole again. Rejects if the client failed. */
  during: (t: Test, work: Work) => Promise<string>
}

export const nothing: Strike = {
  title: 'undisturbed',
  during: (_, { client }) => client().succeeded(),
}

export const diskHostKilled: Strike = {
  title: 'with a disk host killed in the middle',
  during: async (t, { volume, client, afterBytes }) => {
    const { ankole } = volume
    const disk = 'disk-2'
    const pid = await ankole.diskHostPid(disk)
    const written = await volume.watchWritten()
    const running = client()
    await written(afterBytes)
    process.kill(pid, 'SIGKILL')
    t.ok(running.isRunning, 'the client is at work')
    const output = await running.succeeded()
    await restarted(volume, disk, pid)
    const { replicas } = await volume.healthy()
    const states = replicas.map(({ state }) => state)
    t.strictSame(states, ['member', 'member', 'member'], 'back within the grace time, nobody left')
    return output
  },
}

async function restarted(volume: Volume, disk: string, killed: number): Promise<void> {
  const deadline = performance.now() + 30_000
  for (;;) {
    const { processes } = await volume.ankole.status()
    if (processes.some((process) => process.disk === disk && process.pid !== killed)) return
    if (performance.now() > deadline) throw new Error(`${disk} is not started again\n${volume.ankole.log()}`)
    await sleep(100)
  }
}

export const strikes: readonly Strike[] = [nothing, diskHostKilled]
