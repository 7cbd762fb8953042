import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { dataIn, inLanes, pieceBytes, piecesOf } from '../../../src/image/lanes.js'

const signal = new AbortController().signal

t.test('what is zero is left out, by blocks of 4096 bytes', (t) => {
  const found = (bytes: Buffer) => [...dataIn(bytes)].map(({ at, part }) => [at, part.length])
  const bytes = Buffer.alloc(pieceBytes)
  t.same(found(bytes), [])
  bytes[0] = 1
  bytes[8191] = 1
  bytes[20_480] = 1
  t.same(found(bytes), [
    [0, 8192],
    [20_480, 4096],
  ])
  bytes[pieceBytes - 1] = 1
  t.same(found(bytes).at(-1), [pieceBytes - 4096, 4096])
  t.same(found(Buffer.alloc(512)), [])
  t.same(found(Buffer.alloc(4608, 1)), [[0, 4608]], 'the last block may be short')
  t.end()
})

t.test('pieces cover a range, and no more', (t) => {
  t.same(
    [...piecesOf(512, 2 * pieceBytes)].map(({ offsetBytes, lengthBytes }) => [offsetBytes, lengthBytes]),
    [
      [512, pieceBytes],
      [512 + pieceBytes, pieceBytes],
    ],
  )
  t.same([...piecesOf(0, pieceBytes + 512)].at(-1), { offsetBytes: pieceBytes, lengthBytes: 512 })
  t.same([...piecesOf(0, 0)], [])
  t.end()
})

t.test('each piece is done once, several at a time, each with a buffer of its own', async (t) => {
  const done: number[] = []
  const used = new Set<ArrayBufferLike>()
  let most = 0
  await inLanes(piecesOf(0, 30 * pieceBytes), signal, async ({ offsetBytes }, buffer) => {
    t.notOk(used.has(buffer.buffer))
    used.add(buffer.buffer)
    most = Math.max(most, used.size)
    await sleep(1)
    used.delete(buffer.buffer)
    done.push(offsetBytes / pieceBytes)
  })
  t.same(
    done.sort((a, b) => a - b),
    [...Array(30).keys()],
  )
  t.ok(most > 1)
})

t.test('the first failure ends it, and nothing is under way after it', async (t) => {
  let [begun, running] = [0, 0]
  const failing = inLanes(piecesOf(0, 1000 * pieceBytes), signal, async () => {
    running += 1
    if (++begun === 5) {
      running -= 1
      throw new Error('the fifth')
    }
    await sleep(5)
    running -= 1
  })
  await t.rejects(failing, { message: 'the fifth' })
  t.equal(running, 0)
  t.ok(begun < 100)
})

t.test('a signal ends it with its reason, whatever that made fail', async (t) => {
  const ending = new AbortController()
  const failing = inLanes(piecesOf(0, 1000 * pieceBytes), ending.signal, async () => {
    await sleep(1)
    ending.abort(new Error('interrupted'))
    throw new Error('connection lost')
  })
  await t.rejects(failing, { message: 'interrupted' })
})
