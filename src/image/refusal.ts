// Why an image is not imported.
import { AnkoleError } from '../api/errors.js'

export function refused(path: string, why: string): AnkoleError {
  return new AnkoleError('invalid-image', `The image ${path} cannot be imported: ${why}.`)
}

/** Of an image in a format of others. */
export function foreignAdvice(what: string): string {
  return (
    `it is ${what}, and raw and qcow2 are taken. Where you trust it, convert it: qemu-img convert -O qcow2 IMAGE CONVERTED. ` +
    'If these are the bytes of the disk all the same: --format raw'
  )
}
