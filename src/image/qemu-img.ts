// qemu-img, which reads and writes qcow2. It gets the format that an image was found to have, never guesses one, and never
// opens a file that an image names.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { AnkoleError } from '../api/errors.js'
import { refused } from './refusal.js'

const program = 'qemu-img'
/** Of what it complains. */
const complaintBytesMax = 4096

interface Ended {
  code: number | null
  complaints: string
}

interface RunOptions {
  signal: AbortSignal
  /** Of what it prints, one by one: at a newline or carriage return. */
  onLine?: (line: string) => void
}

/** Throws missing-program, and the signal's reason. Whatever it does then has ended. */
async function run(args: readonly string[], { signal, onLine }: RunOptions): Promise<Ended> {
  signal.throwIfAborted()
  // In a group of its own: Ctrl-C is for who waits for it, who ends it and then cleans up.
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    env: { ...process.env, LC_ALL: 'C' },
  })
  const kill = (): void => void child.kill('SIGKILL')
  signal.addEventListener('abort', kill)
  let complaints = ''
  child.stderr.on('data', (data: Buffer) => {
    complaints = (complaints + data.toString()).slice(0, complaintBytesMax)
  })
  const lines = createInterface({ input: child.stdout, crlfDelay: Infinity })
  lines.on('line', (line) => onLine?.(line))
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', resolve)
    })
    signal.throwIfAborted()
    return { code, complaints: complaints.trim() }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
    throw new AnkoleError(
      'missing-program',
      `${program} is not installed here, and it reads and writes qcow2 (Debian: apt-get install qemu-utils).`,
      { cause: error },
    )
  } finally {
    signal.removeEventListener('abort', kill)
  }
}

/** Throws missing-program: before anything is done that would have to be undone. */
export async function needQemuImg(signal: AbortSignal): Promise<void> {
  await run(['--version'], { signal })
}

/** As `json:` names a qcow2 file: that very file, and no other whatever is written in it. */
function only(path: string): string {
  return `json:${JSON.stringify({ driver: 'qcow2', backing: null, file: { driver: 'file', filename: path } })}`
}

/** What `qemu-img check` ends with. */
const foundDamaged = 2
const foundLeaks = 3

/** That a qcow2 image does not contradict itself. Throws invalid-image. */
export async function checkQcow2(path: string, signal: AbortSignal): Promise<void> {
  const { code, complaints } = await run(['check', '-q', only(path)], { signal })
  // Clusters that nobody refers to cost space, and are no loss of data.
  if (code === 0 || code === foundLeaks) return
  const [first = ''] = complaints.split('\n')
  const said = first.replace(/^qemu-img: /, '')
  if (code !== foundDamaged) throw refused(path, `qemu-img cannot check it: ${said}`)
  throw refused(path, `it is damaged (qemu-img check: ${said}). Repair a copy of it: qemu-img check -r all IMAGE`)
}

export interface ConvertOptions {
  signal: AbortSignal
  /** Of the whole, from 0 to 1. */
  onProgress: (share: number) => void
}

/** Onto a volume that reads as zeros: what is zero in the image is not written. */
export function qcow2ToVolume(path: string, uri: string, options: ConvertOptions): Promise<void> {
  return convert(
    ['-n', '--target-is-zero', '-O', 'raw', only(path), uri],
    `The image ${path} cannot be copied to the volume`,
    options,
  )
}

/** Into a file that is there: holes of the volume are left out. */
export function volumeToQcow2(
  uri: string,
  { path, temporary }: { path: string; temporary: string },
  options: ConvertOptions,
): Promise<void> {
  return convert(['-f', 'raw', '-O', 'qcow2', uri, temporary], `The image ${path} cannot be written`, options)
}

async function convert(args: readonly string[], what: string, { signal, onProgress }: ConvertOptions): Promise<void> {
  const onLine = (line: string): void => {
    const percent = /\((\d+\.\d+)\/100%\)/.exec(line)?.[1]
    if (percent !== undefined) onProgress(Number(percent) / 100)
  }
  const { code, complaints } = await run(['convert', '-p', ...args], { signal, onLine })
  if (code === 0) return
  const why = complaints === '' ? `qemu-img ended with ${code ?? 'a signal'}` : complaints.replaceAll('qemu-img: ', '')
  throw new AnkoleError('file-error', `${what}: ${why.split('\n').join('; ')}.`)
}
