// The commands as a script uses them: a process of their own, against the real API on a manager with a fake agent.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { listen } from '../../../src/api/index.js'
import { aServerOf } from '../api/server.js'
import { aCluster, type Cluster } from '../manager/cluster.js'

const main = fileURLToPath(new URL('../../../src/cli/main.js', import.meta.url))

interface Result {
  exitCode: number
  stdout: string
  stderr: string
}

function ankole(url: string, ...parameters: string[]): Promise<Result> {
  return new Promise((resolve) => {
    const options = { env: { ...process.env, ANKOLE_URL: url } }
    execFile(process.execPath, [main, ...parameters], options, (error, stdout, stderr) => {
      resolve({ exitCode: typeof error?.code === 'number' ? error.code : 0, stdout, stderr })
    })
  })
}

async function aServer(t: Test): Promise<Cluster & { run: (...parameters: string[]) => Promise<Result> }> {
  const cluster = await aCluster(t)
  const server = await aServerOf(t, cluster)
  const url = await listen(server, { host: '127.0.0.1', port: 0 })
  return { ...cluster, run: (...parameters) => ankole(url, ...parameters) }
}

const nowhere = 'http://127.0.0.1:1'

void t.test('the contract for scripts', async (t) => {
  const { run } = await aServer(t)
  const json = async (...parameters: string[]): Promise<unknown> => {
    const { exitCode, stdout, stderr } = await run(...parameters, '--json')
    t.equal(exitCode, 0, stderr)
    return JSON.parse(stdout)
  }
  t.match(await json('volume', 'create', 'data', '--size', '1GiB', '--replicas', '3'), {
    name: 'data',
    state: 'detached',
  })
  const attached = await json('volume', 'attach', 'data')
  t.match(attached, {
    iscsi: { portal: '127.0.0.1:3260', iqn: 'iqn.2026-11.io.ankole:data', lun: 0 },
    nbd: { uri: /^nbd:\/\/127\.0\.0\.1:\d+\/data$/ },
  })
  t.same(await json('volume', 'attach', 'data'), attached, 'attaching again prints the same')
  t.match(await json('volume', 'list'), { volumes: [{ name: 'data', state: 'attached' }] })
  t.match(await json('status'), {
    processes: [
      { pid: Number, kind: 'manager' },
      { pid: Number, kind: 'disk-host', disk: 'disk-1' },
      { pid: Number, kind: 'portal' },
    ],
    nodes: [{ portal: { address: '127.0.0.1:3260', state: 'ready' } }],
    volumes: [
      { name: 'data', replicas: [{ node: 'node-1', disk: 'disk-1', directory: String, state: 'member' }, {}, {}] },
    ],
  })
  t.match(await json('volume', 'detach', 'data'), { name: 'data', state: 'detached' })
  t.same(await json('volume', 'delete', 'data'), { name: 'data', deleted: true })
})

void t.test('what people read', async (t) => {
  const { run } = await aServer(t)
  t.match((await run('volume', 'list')).stdout, /No volumes. Create one with/)
  t.match(
    (await run('volume', 'create', 'data', '--size', '10G')).stdout,
    /is created: 9.3 GiB, with replicas on node-1\/disk-1/,
  )
  const uri = 'iscsi://127.0.0.1:3260/iqn.2026-11.io.ankole:data/0'
  t.match(
    (await run('volume', 'attach', 'data')).stdout,
    new RegExp(`is attached to node-1:\n  ${uri}\n  nbd://.*/data\n`),
  )
  t.match((await run('volume', 'list')).stdout, new RegExp(`healthy +${uri} +nbd:`))
  const old = await run('volume', 'create', 'old', '--size', '1GiB', '--physical-block-size', '512')
  t.match(old.stdout, /Note: physical blocks of 512 bytes: initiators may write less/)
  const { stdout } = await run('status')
  t.match(stdout, new RegExp(`data +9.3 GiB +[0-9.]+ [KM]iB +3/3 +attached +healthy +${uri} +nbd:`))
  t.match(stdout, /node-1 +127.0.0.1:3260 +ready +epoll/)
  t.match(stdout, /portal +- +node-1 +1/)
  t.match(stdout, /disk-host +disk-1/)
  t.match(stdout, /Note: old: physical blocks of 512 bytes/)
})

void t.test('a volume is shown, changed and scrubbed', async (t) => {
  const { run, agent, until } = await aServer(t)
  await run('volume', 'create', 'data', '--size', '1GiB')
  await run('volume', 'attach', 'data')
  const { stdout } = await run('volume', 'show', 'data')
  t.match(stdout, /^volume +data, 1 GiB, attached, healthy\n/)
  t.match(stdout, /\nscrub +every 7 d at 32 MiB\/s, the next one due 2/)
  t.match(stdout, /\nlast scrub +none has ended yet\n/)
  t.match(stdout, /\nreplica +[0-9a-f]{16} on node-1\/disk-1, member\n/)
  const settings = ['--resync-bandwidth', '100MiB', '--scrub-period', 'off', '--scrub-bandwidth', '1MiB']
  const changed = await run('volume', 'update', 'data', ...settings)
  t.match(changed.stdout, /resync 100 MiB\/s\nscrub +off at 1 MiB\/s, the next one none\n/)
  t.match(await run('volume', 'update', 'data'), { exitCode: 2, stderr: /say what to change/ })
  t.match(await run('volume', 'update', 'data', '--scrub-period', '5m'), { exitCode: 2, stderr: /from 1h to 366d/ })
  const back = await run('volume', 'update', 'data', '--scrub-period', 'default', '--json')
  t.match(JSON.parse(back.stdout), { resyncBandwidth: 100 * 1024 ** 2, scrub: { periodSeconds: 604_800 } })
  t.match(await run('volume', 'scrub', 'data', '--status'), { exitCode: 0, stdout: /was never scrubbed/ })
  const waiting = run('volume', 'scrub', 'data')
  await until('data', () => agent.plan?.engines[0]?.scrub !== undefined)
  agent.scrubs({ running: false, finished: true, regionsDone: 256, corruptBlocks: 1 })
  t.match(await waiting, { exitCode: 1, stdout: /scrubbed 262144 blocks, until .*Z; 0 damaged blocks repaired, 1 dam/ })
  t.match((await run('volume', 'show', 'data')).stdout, /\nlast scrub +2.*Z: 0 damaged blocks repaired, 1 damaged/)
  await run('volume', 'scrub', 'data', '--no-wait')
  t.match(await run('volume', 'scrub', 'data', '--stop'), {
    stdout: 'No scrub of volume data is under way any more.\n',
  })
})

void t.test('a volume is trimmed, and the command says what came of it', async (t) => {
  const { run, agent, until } = await aServer(t)
  await run('volume', 'create', 'data', '--size', '1GiB')
  t.match(await run('volume', 'trim', 'data', '--status'), { exitCode: 0, stdout: /data was never trimmed/ })
  t.match(await run('volume', 'trim', 'data'), { exitCode: 1, stderr: /cannot be trimmed: it is detached.\nAttach/ })
  await run('volume', 'attach', 'data')
  t.match(await run('volume', 'trim', 'data', '--bandwidth', '1KiB'), { exitCode: 2, stderr: /1MiB is the least/ })
  const waiting = run('volume', 'trim', 'data', '--bandwidth', '0')
  await until('data', () => agent.plan?.engines[0]?.trim !== undefined)
  t.match(await run('volume', 'trim', 'data'), { exitCode: 1, stderr: /it is being trimmed since 2/ })
  agent.trims({ running: false, finished: true, bytesDone: 2 ** 30, unmappedBytes: 3 * 1024 ** 2 })
  t.match(await waiting, { exitCode: 0, stdout: /^Volume data: trimmed, until 2.*Z; 3 MiB of zeros given back.\n$/ })
  t.match((await run('volume', 'show', 'data')).stdout, /\nlast trim +2.*Z: done, 3 MiB of zeros given back\n/)
  t.match(await run('volume', 'trim', 'data', '--no-wait'), { exitCode: 0, stdout: /is being trimmed: 0 % of 1 GiB/ })
  const stopped = await run('volume', 'trim', 'data', '--stop', '--json')
  t.match(JSON.parse(stopped.stdout), { running: false, last: { outcome: 'stopped' } })
})

void t.test('snapshots are taken, listed and deleted', async (t) => {
  const { run, agent, manager, untilState } = await aServer(t)
  await run('volume', 'create', 'data', '--size', '1GiB')
  t.match(await run('snapshot', 'create', 'data'), {
    exitCode: 1,
    stderr: /is detached, not attached.\nAttach the vol/,
  })
  await run('volume', 'attach', 'data')
  t.match(await run('snapshot', 'list', 'data'), {
    exitCode: 0,
    stdout: /^Volume data has no snapshots. Take one with/,
  })
  t.match(await run('snapshot', 'create', 'data', 'monday', '--label', 'app=db', '--label', 'by=me=you'), {
    ...{ exitCode: 0, stderr: '' },
    stdout: 'Snapshot monday of volume data is ready: I/O was held up for 1.5 ms.\n',
  })
  const second = await run('snapshot', 'create', 'data', '--json')
  t.match(JSON.parse(second.stdout), { name: /^snap-\d{8}-\d{6}$/, state: 'ready', labels: {}, pauseMs: 1.5 })
  const { stdout } = await run('snapshot', 'list', 'data')
  t.match(
    stdout,
    /\nmonday +4 KiB +\d+ s +ready +app=db,by=me=you\nsnap-\d+-\d+ +4 KiB .*\n\* head +8 KiB +- +written to\n$/,
  )
  t.match(JSON.parse((await run('snapshot', 'list', 'data', '--json')).stdout), {
    ...{ volume: 'data', snapshots: [{ name: 'monday' }, {}], layers: [{ snapshot: 'monday' }, {}, { head: true }] },
  })
  t.match(await run('snapshot', 'create', 'data', 'x', '--label', '=y'), { exitCode: 2, stderr: /Use KEY=VALUE/ })
  t.match(await run('snapshot', 'create', 'data', 'X'), { exitCode: 2, stderr: /"X" cannot name a snapshot/ })
  t.match(await run('snapshot', 'delete', 'data', 'monday'), {
    exitCode: 0,
    stdout: /^Snapshot monday of volume data is deleted.\nIt takes up 4 KiB at each replica now. What of that neither/,
  })
  t.match(await run('snapshot', 'delete', 'data', 'monday'), { exitCode: 1, stderr: /has no snapshot "monday"/ })
  agent.taking = { code: 'unsupported', message: 'replica aa cannot prepare it' }
  t.match(await run('snapshot', 'create', 'data', 'never'), { exitCode: 1, stderr: /was not taken: replica aa cannot/ })
  agent.taking = 'held'
  const late = await run('snapshot', 'create', 'data', 'late', '--timeout', '100ms')
  t.match(late, { exitCode: 4, stderr: /is not ready after 0.1 s: it is creating/ })
  await manager.detach('data')
  await untilState('data', 'detached')
  const { name } = JSON.parse(second.stdout) as { name: string }
  t.match(await run('snapshot', 'delete', 'data', name), {
    exitCode: 0,
    stdout: /is not deleted yet: volume data is detached/,
  })
  t.match(await run('snapshot', 'list', 'data'), {
    stdout: /\nOf volume data sizes, and .* are not known: it is detached\.$/m,
  })
})

void t.test('errors name the cause and what to do, and have an exit code of their own', async (t) => {
  const { run, agent } = await aServer(t)
  t.match(await run('volume', 'attach', 'data'), {
    exitCode: 1,
    stdout: '',
    stderr: /"data" does not exist.\nCheck the/,
  })
  t.match(await run('volume', 'create', 'Data', '--size', '1GiB'), { exitCode: 2, stderr: /contains "D"/ })
  t.match(await run('volume', 'create', 'data', '--size', '1'), { exitCode: 2, stderr: /too small/ })
  t.match(await run('volume', 'create', 'data'), { exitCode: 2, stderr: /--size/ })
  t.match(await run('volume', 'create', 'data', '--size', '1GiB', '--replicas', '0'), {
    exitCode: 2,
    stderr: /1 to 16/,
  })
  t.match(await run('volume', 'create', 'data', '--size', '1GiB', '--physical-block-size', '1024'), {
    exitCode: 2,
    stderr: /Use 512 or 4096/,
  })
  t.match(await run('volume', 'burn', 'data'), { exitCode: 2, stderr: /unknown command/ })
  t.match(await run('volume', 'create', 'data', '--size', '1GiB', '--replicas', '4'), {
    exitCode: 1,
    stderr: /disk of its/,
  })
  await run('volume', 'create', 'data', '--size', '1GiB')
  agent.engineState = 'starting'
  t.match(await run('volume', 'attach', 'data', '--timeout', '100ms'), { exitCode: 4, stderr: /it is attaching/ })
})

void t.test('secrets of CHAP come from files, and go to the store only', async (t) => {
  const { run, manager } = await aServer(t)
  const directory = t.testdir({ mine: 'a secret of mine\n', yours: 'a secret of yours' })
  const [mine, yours] = [join(directory, 'mine'), join(directory, 'yours')]
  const create = ['volume', 'create', 'data', '--size', '1GiB', '--json']
  const chap = ['--chap-user', 'me', '--chap-secret-file', mine]
  const bad = await run(...create, ...chap, '--chap-mutual-user', 'you', '--chap-mutual-secret-file', mine)
  t.match(bad, { exitCode: 2, stdout: '', stderr: /invalid-chap.*are the same/ })
  const mutual = ['--chap-mutual-user', 'you', '--chap-mutual-secret-file', yours]
  const created = await run(...create, ...chap, ...mutual)
  t.equal(created.exitCode, 0, created.stderr)
  t.match(JSON.parse(created.stdout), { name: 'data', chap: 'mutual' })
  const secrets = { secret: 'a secret of mine', mutualSecret: 'a secret of yours' }
  t.same(manager.volume('data').chap, { user: 'me', mutualUser: 'you', ...secrets })
  const shown = [bad, created, await run('volume', 'list', '--json'), await run('status', '--json')]
  t.notMatch(JSON.stringify(shown), /secret of (mine|yours)/)
})

void t.test('with --json an error is a document too', async (t) => {
  const { run } = await aServer(t)
  const { stdout, stderr } = await run('volume', 'attach', 'data', '--json')
  t.equal(stdout, '')
  t.match(JSON.parse(stderr), { error: { code: 'not-found', message: String, action: String } })
})

void t.test('where nothing runs the command says how to start it', async (t) => {
  const result = await ankole(nowhere, 'status')
  t.match(result, {
    exitCode: 3,
    stderr: /cannot be reached at http:\/\/127.0.0.1:1: .*\nStart Ankole with `ankole up`/,
  })
  t.match(await ankole('nonsense', 'status'), { exitCode: 2, stderr: /is not the URL of an API/ })
})

void t.test('help is there for every command', async (t) => {
  for (const command of [
    [],
    ['up'],
    ['volume'],
    ['volume', 'create'],
    ['snapshot'],
    ['snapshot', 'create'],
    ['status'],
  ]) {
    const { exitCode, stdout } = await ankole(nowhere, ...command, '--help')
    t.equal(exitCode, 0)
    t.match(stdout, /^Usage: ankole/)
  }
})

t.test('a reader that has seen enough, as `head` has, is no error', async (t) => {
  const child = spawn(process.execPath, [main, 'volume', 'create', '--help'], { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.destroy()
  const [said] = await Promise.all([text(child.stderr), once(child, 'close')])
  t.equal(said, '')
  t.equal(child.exitCode, 0)
})
