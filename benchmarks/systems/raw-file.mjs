// The floor: fio on a plain file, no server. What it costs is what fio itself takes.
import { join } from 'node:path'
import { plainFile } from './plain-file.mjs'

export function rawFile({ directory, sizeBytes }) {
  const file = plainFile(join(directory, 'raw.img'), sizeBytes)
  return {
    name: 'raw',
    about: 'fio libaio, buffered; done within the system call where it is cached, at any queue depth',
    target: () => ['--ioengine=libaio', '--direct=0', `--filename=${file}`],
    files: () => [file],
    processes: () => [],
    stop: () => Promise.resolve(),
  }
}
