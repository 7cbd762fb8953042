// A file of zeroes, without a block yet: what the systems without replicas keep their data in.
import { closeSync, ftruncateSync, openSync } from 'node:fs'

export function plainFile(path, sizeBytes) {
  const descriptor = openSync(path, 'w')
  ftruncateSync(descriptor, sizeBytes)
  closeSync(descriptor)
  return path
}
