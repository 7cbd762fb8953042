import t from 'tap'
import { History, zero } from '../../faults/history.js'
import { Random } from '../../faults/random.js'

const block = 7

/** Carried out and answered with nothing else in between. */
function write(history: History): number {
  const one = history.beginWrite(block)
  history.endWrite(one)
  return one.value
}

function read(history: History, value: number): void {
  history.endRead(block, history.begin(), value)
}

function flush(history: History): void {
  history.endFlush(history.begin())
}

const fine = (history: History): unknown[] => history.check()

t.test('what one register can have answered', (t) => {
  t.test('a block that nobody wrote, and then one write after another', (t) => {
    const history = new History()
    read(history, zero)
    const [first, second] = [write(history), write(history)]
    t.not(first, second)
    read(history, second)
    read(history, second)
    t.strictSame(fine(history), [])
    t.end()
  })
  t.test('two writes at once: either may be the last, and a read meanwhile may see any of the three', (t) => {
    for (const last of ['one', 'other'] as const) {
      for (const meanwhile of ['before', 'one', 'other'] as const) {
        const history = new History()
        const values = { before: write(history), one: 0, other: 0 }
        const [one, other] = [history.beginWrite(block), history.beginWrite(block)]
        values.one = one.value
        values.other = other.value
        const begin = history.begin()
        history.endRead(block, begin, values[meanwhile])
        history.endWrite(other)
        history.endWrite(one)
        read(history, values[last])
        t.strictSame(fine(history), [], `${meanwhile}, then ${last}`)
      }
    }
    t.end()
  })
  t.test('a write without an answer may have been carried out or not, but only once and for good', (t) => {
    for (const seen of [true, false]) {
      const history = new History()
      const before = write(history)
      const lost = history.beginWrite(block)
      history.settle(lost)
      read(history, seen ? lost.value : before)
      const after = write(history)
      read(history, after)
      t.strictSame(fine(history), [], seen ? 'it was' : 'it was not')
    }
    t.end()
  })
  t.test('zeroes after an unmap, and what was written after it', (t) => {
    const history = new History()
    write(history)
    history.endUnmap(block)
    read(history, zero)
    read(history, write(history))
    t.strictSame(fine(history), [])
    t.end()
  })
  t.end()
})

t.test('what no register can have answered', (t) => {
  t.test('an acknowledged write that is not there', (t) => {
    const history = new History()
    const before = write(history)
    write(history)
    read(history, before)
    t.match(fine(history), [{ block, what: /came back or was lost/ }])
    t.end()
  })
  t.test('zeroes where something was acknowledged', (t) => {
    const history = new History()
    write(history)
    read(history, zero)
    t.equal(fine(history).length, 1)
    t.end()
  })
  t.test('old and new in turn', (t) => {
    const history = new History()
    const before = write(history)
    const lost = history.beginWrite(block)
    history.settle(lost)
    for (const value of [before, lost.value, before]) read(history, value)
    t.ok(fine(history).length > 0)
    t.end()
  })
  t.test('two writes at once of which first one and then the other is the last', (t) => {
    const history = new History()
    const [one, other] = [history.beginWrite(block), history.beginWrite(block)]
    history.endWrite(one)
    history.endWrite(other)
    read(history, one.value)
    read(history, other.value)
    read(history, one.value)
    t.ok(fine(history).length > 0)
    t.end()
  })
  t.test('a write of an old session that lands after a new one has begun and was read', (t) => {
    const history = new History()
    const late = history.beginWrite(block)
    history.settle(late)
    const after = write(history)
    read(history, after)
    read(history, late.value)
    t.ok(fine(history).length > 0)
    t.end()
  })
  t.test('a value that belongs to another block, or that an unmap took away', (t) => {
    const history = new History()
    const elsewhere = history.beginWrite(block + 1)
    history.endWrite(elsewhere)
    read(history, elsewhere.value)
    t.match(fine(history), [{ block, what: /cannot hold it/ }])
    const unmapped = new History()
    const value = write(unmapped)
    unmapped.endUnmap(block)
    read(unmapped, value)
    t.match(fine(unmapped), [{ block, what: /began with zeroes/ }])
    t.end()
  })
  t.end()
})

t.test('what may be lost when all replicas lose power', (t) => {
  t.test('what was flushed may not', (t) => {
    const history = new History()
    const before = write(history)
    write(history)
    flush(history)
    history.powerLost()
    read(history, before)
    t.match(fine(history), [{ block, what: /may have survived/ }])
    t.end()
  })
  t.test('what was written after the flush may, and is then one of the values since', (t) => {
    for (const pick of [0, 1, 2]) {
      const history = new History()
      write(history)
      const flushed = write(history)
      flush(history)
      const values = [flushed, write(history), write(history)]
      history.powerLost()
      read(history, values[pick]!)
      t.strictSame(fine(history), [])
      read(history, values[(pick + 1) % 3]!)
      t.match(fine(history), [{ block, what: /after a power-loss it was read as/ }], 'but not two of them')
    }
    t.end()
  })
  t.test('a flush covers what was answered before it began, and nothing after', (t) => {
    const history = new History()
    const before = write(history)
    const begin = history.begin()
    write(history)
    history.endFlush(begin)
    history.powerLost()
    read(history, before)
    t.strictSame(fine(history), [])
    t.end()
  })
  t.test('an unmap that was not flushed may be undone, one that was may not', (t) => {
    for (const flushed of [true, false]) {
      const history = new History()
      const value = write(history)
      flush(history)
      history.endUnmap(block)
      if (flushed) flush(history)
      history.powerLost()
      read(history, value)
      t.equal(fine(history).length, flushed ? 1 : 0)
    }
    t.end()
  })
  t.end()
})

/** One operation of a small history; `value` is what was written or read. */
interface Step {
  is: 'write' | 'read'
  value: number
  begin: number
  end: number
}

/** By trying: is there an order in which each comes after those that had ended, and each read sees the write before it? */
function hasOrder(left: readonly Step[], value: number = zero): boolean {
  if (left.length === 0) return true
  return left.some((step) => {
    if (left.some((other) => other.end < step.begin)) return false
    if (step.is === 'read' && step.value !== value) return false
    return hasOrder(
      left.filter((other) => other !== step),
      step.value,
    )
  })
}

t.test('it says what trying all orders says, on thousands of small histories', (t) => {
  const random = new Random(4)
  const seen = { good: 0, bad: 0 }
  for (let round = 0; round < 4000; round++) {
    const { history, steps } = someHistory(random)
    const expected = hasOrder(steps)
    seen[expected ? 'good' : 'bad']++
    const found = history.check()
    if ((found.length === 0) !== expected) {
      t.fail(`round ${round}: ${expected ? 'there is an order' : 'there is none'}`, { steps, found })
    }
  }
  t.ok(seen.good > 500 && seen.bad > 500, `${seen.good} with an order, ${seen.bad} without`)
  t.end()
})

function someHistory(random: Random): { history: History; steps: Step[] } {
  const history = new History()
  const steps: Step[] = []
  const values = [zero]
  /** Ends one. */
  const open: ((event: number) => void)[] = []
  const count = random.between(3, 6)
  for (let event = 0; steps.length < count || open.length > 0; event++) {
    if (steps.length === count || (open.length > 0 && random.chance(50))) {
      open.splice(random.below(open.length), 1)[0]!(event)
      continue
    }
    const step: Step = { is: random.chance(50) ? 'write' : 'read', value: zero, begin: event, end: Infinity }
    steps.push(step)
    if (step.is === 'write') {
      const write = history.beginWrite(block)
      step.value = write.value
      values.push(write.value)
      open.push((end) => {
        step.end = end
        history.endWrite(write)
      })
    } else {
      const begin = history.begin()
      open.push((end) => {
        step.end = end
        step.value = random.pick(values)
        history.endRead(block, begin, step.value)
      })
    }
  }
  return { history, steps }
}
