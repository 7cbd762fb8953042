// The floor: fio on a plain file, no server. What it costs is what fio itself takes.
import { closeSync, ftruncateSync, openSync } from 'node:fs'
import { join } from 'node:path'

export const rawFile = {
  name: 'raw',
  start: ({ directory, sizeBytes }) => {
    const file = join(directory, 'raw.img')
    const descriptor = openSync(file, 'w')
    ftruncateSync(descriptor, sizeBytes)
    closeSync(descriptor)
    return {
      name: 'raw',
      about: 'fio libaio, buffered; done within the system call where it is cached, at any queue depth',
      target: () => ['--ioengine=libaio', '--direct=0', `--filename=${file}`],
      files: () => [file],
      processes: () => [],
      stop: () => Promise.resolve(),
    }
  },
}
