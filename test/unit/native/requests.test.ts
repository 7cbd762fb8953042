import t from 'tap'
import { RequestError, Requests, type DiskHostRequests } from '../../../src/native/index.js'

type Posted = { request: number; op: string } & Record<string, unknown>

function requests(heard = true): { requests: Requests<DiskHostRequests>; posted: Posted[] } {
  const posted: Posted[] = []
  return {
    posted,
    requests: new Requests<DiskHostRequests>((document) => {
      if (heard) posted.push(document as Posted)
      return heard
    }),
  }
}

t.test('each request gets its own reply, in whatever order they come', async (t) => {
  const { requests: host, posted } = requests()
  const space = host.send('space', {}, 1000)
  const removed = host.send('remove-replica', { volume: 'demo', id: 'aa' }, 1000)
  t.match(posted, [{ op: 'space' }, { op: 'remove-replica', volume: 'demo', id: 'aa' }])
  host.settle({ reply: posted[1]!.request, error: { code: 'busy', message: 'it is in use' } })
  host.settle({ reply: posted[0]!.request, result: { totalBytes: 2, freeBytes: 1 } })
  t.strictSame(await space, { totalBytes: 2, freeBytes: 1 })
  await t.rejects(removed, new RequestError('busy', 'it is in use'))
})

t.test('a request that nobody hears fails at once', async (t) => {
  await t.rejects(requests(false).requests.send('space', {}, 60_000), { code: 'gone' })
})

t.test('a silent process costs no more than the time limit, and its late reply is dropped', async (t) => {
  const { requests: host, posted } = requests()
  await t.rejects(host.send('space', {}, 5), { code: 'timeout', message: 'no answer to space within 5 ms' })
  host.settle({ reply: posted[0]!.request, result: {} })
})

t.test('what was asked of a process that is gone fails', async (t) => {
  const { requests: host } = requests()
  const asked: Promise<unknown>[] = [host.send('space', {}, 60_000), host.send('list-replicas', {}, 60_000)]
  host.abandon('disk host disk-1 was ended by SIGKILL')
  for (const one of asked) await t.rejects(one, { code: 'gone', message: 'disk host disk-1 was ended by SIGKILL' })
})
