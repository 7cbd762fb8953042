// A disk host that is killed while the guest writes.

import type { Test } from 'tap'
import { sleep } from '../conformance/ankole.js'
import type { Volume } from '../conformance/volume.js'
import type { Command } from './guest.js'

const disk = 'disk-2'
/** The blow falls when so much is written. */
const afterBytes = 4 << 20
const restartWaitMs = 30_000

/** Resolves when the command has ended well and all three replicas are members again. */
export async function diskHostKilled(t: Test, volume: Volume, begin: () => Command): Promise<void> {
  const { ankole } = volume
  const pid = await ankole.diskHostPid(disk)
  const written = await volume.watchWritten()
  const command = begin()
  await written(afterBytes)
  process.kill(pid, 'SIGKILL')
  t.ok(command.isRunning, 'the guest is at work')
  await command.succeeded()
  const deadline = performance.now() + restartWaitMs
  while ([pid, undefined].includes(await diskHost(volume))) {
    if (performance.now() > deadline) throw new Error(`${disk} is not started again\n${ankole.log()}`)
    await sleep(100)
  }
  const { replicas } = await volume.healthy()
  const states = replicas.map(({ state }) => state)
  t.strictSame(states, ['member', 'member', 'member'], 'back within the grace time, nobody left')
}

async function diskHost(volume: Volume): Promise<number | undefined> {
  const { processes } = await volume.ankole.status()
  return processes.find((process) => process.kind === 'disk-host' && process.disk === disk)?.pid
}
