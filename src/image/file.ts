// Files of the user: the image that is read, and the one that is written beside its place and put there when it is whole.
import { randomBytes } from 'node:crypto'
import { link, lstat, open, realpath, rename, rm, stat, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { AnkoleError, messageOf } from '../api/errors.js'

/** As an error of the table, with what Node says of it in words. */
export function fileError(what: string, error: unknown): AnkoleError {
  if (error instanceof AnkoleError) return error
  return new AnkoleError('file-error', `${what}: ${reasonOf(error)}.`, { cause: error })
}

const reasons: Record<string, string> = {
  ENOENT: 'there is no such file or directory',
  EACCES: 'this user may not',
  EPERM: 'this user may not',
  ENOSPC: 'no space is left on that file system',
  EDQUOT: 'no space is left in the quota of this user',
  EFBIG: 'that file system holds no file of this size',
  EROFS: 'that file system is read-only',
  EISDIR: 'it is a directory',
  ENOTDIR: 'a part of the path is no directory',
}

function reasonOf(error: unknown): string {
  return reasons[codeOf(error) ?? ''] ?? messageOf(error)
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}

export interface SourceFile {
  path: string
  file: FileHandle
  fileBytes: number
  /** Throws invalid-image where it is not as it was when it was opened. */
  checkUnchanged: () => Promise<void>
}

/** What stays as it is for as long as nobody changes or replaces a file. */
const unchangeable = ['dev', 'ino', 'size', 'mtimeNs', 'ctimeNs'] as const

/** Throws file-error and invalid-image. */
export async function openSource(name: string): Promise<SourceFile> {
  const path = resolve(name)
  const what = `The image ${path} cannot be read`
  try {
    // Looked at first: to open a pipe waits for who writes to it.
    if (!(await stat(path)).isFile()) throw new AnkoleError('invalid-image', `${what}: it is no file.`)
    const file = await open(path, 'r')
    const before = await file.stat({ bigint: true })
    const checkUnchanged = async (): Promise<void> => {
      // By its name, as qemu-img opened it; and by the time of its change, which nobody can set back.
      const now = await stat(path, { bigint: true })
      if (unchangeable.every((field) => now[field] === before[field])) return
      throw new AnkoleError('invalid-image', `The image ${path} was changed while it was read: somebody uses it.`)
    }
    return { path, file, fileBytes: Number(before.size), checkUnchanged }
  } catch (error) {
    throw fileError(what, error)
  }
}

/** A file that is not there before it is whole. */
export class TargetFile {
  /** Where it is written: beside its place, so that it can be put there in one step. */
  readonly temporary: string
  readonly path: string
  readonly file: FileHandle
  readonly #replace: boolean

  /** `replace`: what is there goes, when the new one is whole. Throws already-exists and file-error. */
  static async create(name: string, { replace }: { replace: boolean }): Promise<TargetFile> {
    const path = await placeOf(name, replace)
    // Not longer than file names may be, whatever is in it.
    const like = basename(path).slice(0, 60)
    const temporary = join(dirname(path), `.${like}.${randomBytes(4).toString('hex')}.partial`)
    try {
      return new TargetFile(path, temporary, await open(temporary, 'wx'), replace)
    } catch (error) {
      throw fileError(`The file ${path} cannot be written`, error)
    }
  }

  private constructor(path: string, temporary: string, file: FileHandle, replace: boolean) {
    this.path = path
    this.temporary = temporary
    this.file = file
    this.#replace = replace
  }

  /** On stable storage, and at its place. Throws already-exists where another one came there meanwhile. */
  async publish(): Promise<void> {
    try {
      await this.file.sync()
      if (this.#replace) await rename(this.temporary, this.path)
      else await this.#putInto()
      await syncDirectory(dirname(this.path))
    } catch (error) {
      throw fileError(`The file ${this.path} cannot be written`, error)
    }
  }

  /** Closes it. What was not published is gone. */
  async end(): Promise<void> {
    await this.file.close()
    await rm(this.temporary, { force: true })
  }

  /** A link never takes another one's place, as rename does. */
  async #putInto(): Promise<void> {
    try {
      await link(this.temporary, this.path)
    } catch (error) {
      const code = codeOf(error)
      if (code === 'EEXIST') throw exists(this.path)
      if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS') throw error
      // A file system without links, as on many memory sticks.
      if (await isThere(this.path)) throw exists(this.path)
      await rename(this.temporary, this.path)
    }
  }
}

/** Where a link leads to, so that it stays one. */
async function placeOf(name: string, replace: boolean): Promise<string> {
  const path = resolve(name)
  if (!(await isThere(path))) return path
  if (!replace) throw exists(path)
  try {
    const real = await realpath(path)
    if ((await stat(real)).isFile()) return real
  } catch (error) {
    throw fileError(`The file ${path} cannot be replaced`, error)
  }
  throw new AnkoleError('file-error', `${path} cannot be replaced by an image: it is no file.`)
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false
    throw fileError(`The file ${path} cannot be written`, error)
  }
}

function exists(path: string): AnkoleError {
  return new AnkoleError('already-exists', `The file ${path} exists already; --force replaces it.`)
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
