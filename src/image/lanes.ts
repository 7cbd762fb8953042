// Copying in pieces, several at a time.

/** Of a piece: what an engine takes and answers in one go. */
export const pieceBytes = 1024 ** 2
/** What is not written is told by blocks of this: the smallest that a volume keeps apart. */
const blockBytes = 4096
/** What one NBD connection may have in flight is 16 MiB. */
const width = 8

const zeros = Buffer.alloc(pieceBytes)

export interface Piece {
  offsetBytes: number
  lengthBytes: number
}

/**
 * Does `work` for each piece, `width` at a time, each time with a buffer that nobody else has then. The first failure ends
 * it; nothing is under way any more when this resolves or rejects.
 */
export async function inLanes(
  pieces: AsyncGenerator<Piece, void> | Generator<Piece, void>,
  signal: AbortSignal,
  work: (piece: Piece, buffer: Buffer) => Promise<void>,
): Promise<void> {
  let hasFailed = false
  const lane = async (): Promise<void> => {
    const buffer = Buffer.allocUnsafeSlow(pieceBytes)
    while (!hasFailed) {
      const next = await pieces.next()
      if (next.done) return
      signal.throwIfAborted()
      await work(next.value, buffer.subarray(0, next.value.lengthBytes))
    }
  }
  const lanes = Array.from({ length: width }, () =>
    lane().catch((error: unknown) => {
      hasFailed = true
      throw error
    }),
  )
  await Promise.allSettled(lanes)
  signal.throwIfAborted() // It is why they failed, where it was.
  await Promise.all(lanes)
}

export function* piecesOf(offsetBytes: number, lengthBytes: number): Generator<Piece, void> {
  const end = offsetBytes + lengthBytes
  for (let at = offsetBytes; at < end; at += pieceBytes) {
    yield { offsetBytes: at, lengthBytes: Math.min(pieceBytes, end - at) }
  }
}

/** The parts that are not zero, by blocks. Of at most `pieceBytes`. */
export function* dataIn(bytes: Buffer): Generator<{ at: number; part: Buffer }> {
  if (bytes.compare(zeros, 0, bytes.length) === 0) return
  let begin = -1
  for (let at = 0; at < bytes.length; at += blockBytes) {
    const end = Math.min(at + blockBytes, bytes.length)
    const isZero = bytes.compare(zeros, 0, end - at, at, end) === 0
    if (!isZero && begin < 0) begin = at
    if (!isZero || begin < 0) continue
    yield { at: begin, part: bytes.subarray(begin, at) }
    begin = -1
  }
  if (begin >= 0) yield { at: begin, part: bytes.subarray(begin) }
}
