// Trims by command, of real processes: zeros come back as space, also beside a client, a snapshot and a killed engine.
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { TrimView } from '../../src/api/index.js'
import { pattern } from './builders.js'
import { clientOf, until, up, type Status, type Up } from './up.js'

const MiB = 1024 * 1024

/** What the layers of each replica of the volume take up, by the names of their files. */
async function allocated(node: Up): Promise<Record<string, number>[]> {
  const { volumes } = await node.json('status')
  return volumes![0]!.replicas.map(({ directory }) => {
    const files = readdirSync(directory!).filter((name) => name.endsWith('.img'))
    return Object.fromEntries(files.map((name) => [name, statSync(join(directory!, name)).blocks * 512]))
  })
}

function lastLine(stdout: string): TrimView {
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as TrimView
}

async function trimmed(node: Up, ...options: string[]): Promise<TrimView> {
  const { exitCode, stdout, stderr } = await node.run('volume', 'trim', 'data', ...options, '--json')
  if (exitCode !== 0) throw new Error(`${stdout}${stderr}`)
  return lastLine(stdout)
}

async function started(node: Up): Promise<void> {
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  await node.json('volume', 'attach', 'data')
}

void t.test('zeros come back as space, those of a snapshot are masked, and what is read stays the same', async (t) => {
  const node = await up(t, t.testdir(), '--no-demo', '--disks', '2')
  await started(node)
  const client = await clientOf(await node.json('volume', 'show', 'data'))
  // MiB 0 to 7: zeros, 8 to 11: data, 12 to 15: data with a run of zeros in each MiB.
  const content = Buffer.alloc(16 * MiB)
  for (let at = 8; at < 16; at++) pattern(at, MiB).copy(content, at * MiB)
  for (let at = 12; at < 16; at++) content.fill(0, at * MiB + 65536, at * MiB + 2 * 65536)
  for (let at = 0; at < 16; at++) await client.write(at * MiB, content.subarray(at * MiB, (at + 1) * MiB))
  await client.flush()
  for (const of of await allocated(node)) t.equal(of['volume-head-000.img'], 16 * MiB)
  t.match(await trimmed(node), { running: false, unmappedBytes: 8 * MiB + 4 * 65536, last: { outcome: 'done' } })
  for (const of of await allocated(node)) {
    // A file with many extents has a block of the file system's own for them.
    const over = of['volume-head-000.img']! - (8 * MiB - 4 * 65536)
    t.ok(over >= 0 && over <= 4096, `${over} bytes more than its data`)
  }
  t.ok((await client.read(0, 16 * MiB)).equals(content))

  // What a snapshot holds stays there.
  for (let at = 0; at < 4; at++) await client.write(at * MiB, Buffer.alloc(MiB))
  await node.json('snapshot', 'create', 'data', 'one')
  for (let at = 2; at < 6; at++) await client.write(at * MiB, Buffer.alloc(MiB))
  await client.flush()
  const before = await allocated(node)
  for (const of of before) t.equal(of['volume-head-001.img'], 4 * MiB)
  t.match(await trimmed(node, '--bandwidth', '0'), { unmappedBytes: 6 * MiB, failedBytes: 0 })
  for (const [index, of] of (await allocated(node)).entries()) {
    t.equal(of['volume-head-001.img'], 0)
    const snapshot = (files: Record<string, number>) =>
      Object.entries(files).filter(([name]) => name.startsWith('volume-snap-'))
    t.same(snapshot(of), snapshot(before[index]!))
  }
  t.ok((await client.read(0, 16 * MiB)).equals(content))
  t.match(await trimmed(node), { unmappedBytes: 0 }, 'a mask is left')
  client.close()
})

void t.test(
  'one goes on after its engine was killed, is stopped by command, and interrupted by a detach',
  async (t) => {
    const node = await up(t, t.testdir(), '--no-demo', '--disks', '2')
    await started(node)
    t.match(await node.run('volume', 'trim', 'other'), { exitCode: 1, stderr: /not-found/ })
    const client = await clientOf(await node.json('volume', 'show', 'data'))
    for (let at = 0; at < 32; at++) await client.write(at * MiB, Buffer.alloc(MiB))
    await client.flush()
    client.close()
    await node.run('volume', 'trim', 'data', '--bandwidth', '1MiB', '--no-wait')
    t.match(await node.run('volume', 'trim', 'data'), { exitCode: 1, stderr: /is being trimmed.*busy/s })
    const status = async (): Promise<TrimView> =>
      JSON.parse((await node.run('volume', 'trim', 'data', '--status', '--json')).stdout) as TrimView
    await until('something to be trimmed', async () => (await status()).unmappedBytes > 0)
    const { processes } = (await node.json('status')) as Required<Status>
    process.kill(processes.find(({ kind }) => kind === 'engine')!.pid, 'SIGKILL')
    t.match(await node.run('volume', 'trim', 'data', '--stop'), { exitCode: 0, stdout: /under way any more/ })
    t.match(await status(), { running: false, last: { outcome: 'stopped' } })

    await until('the volume to serve', async () => (await node.run('volume', 'attach', 'data')).exitCode === 0)
    await node.run('volume', 'trim', 'data', '--bandwidth', '4MiB', '--no-wait')
    const waiting = node.run('volume', 'trim', 'data', '--status')
    await waiting
    const engines = ((await node.json('status')) as Required<Status>).processes.filter(({ kind }) => kind === 'engine')
    process.kill(engines[0]!.pid, 'SIGKILL')
    await until('its end', async () => (await status()).last?.outcome === 'done')
    for (const of of await allocated(node)) t.equal(of['volume-head-000.img'], 0)

    const again = await clientOf(await node.json('volume', 'show', 'data'))
    for (let at = 0; at < 32; at++) await again.write(at * MiB, Buffer.alloc(MiB))
    again.close()
    const interrupted = node.run('volume', 'trim', 'data', '--bandwidth', '1MiB')
    await until('a trim', async () => (await status()).running)
    await node.json('volume', 'detach', 'data')
    t.match(await interrupted, { exitCode: 1, stdout: /trim interrupted by a detach, until 2/ })
    t.match(await node.run('volume', 'trim', 'data'), { exitCode: 1, stderr: /cannot be trimmed: it is detached/ })
  },
)
