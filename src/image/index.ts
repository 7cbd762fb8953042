export { copyAcross, copyIn, copyOut, openImage, type CopyOptions, type Image, type Progress } from './copy.js'
export { TargetFile } from './file.js'
export { imageFormats, type ImageFormat } from './format.js'
export { needQemuImg } from './qemu-img.js'
