/* SPDX-License-Identifier: MIT */
/*
 * libwcx: reads packed model files (.wcx) on the CPU, or loads them into a GPU's memory.
 *
 * An open .wcx file shows the safetensors file that was packed: its tensors, and where their bytes lie in that file.  All
 * offsets are offsets in the safetensors file, also called the original.  A loader belongs to one GPU.  Its threads read
 * packed bytes into pinned buffers, copy them to the GPU and decode them there, all at the same time.  The host decodes only
 * Zstandard tiles (the header, integers, truth values), some constant ones, and few of those that are packed against a base.
 *
 * A file that is packed against a base needs the base's packed file: it is looked for where it was, seen from the file's
 * directory, then in that directory and all below, and then around it, up to four directories above or to the working
 * directory.  Without it, the tensors that need it cannot be read (-EIO).
 *
 *	struct wcx_file *file;
 *	struct wcx_loader *loader;
 *	struct wcx_tensor_info tensor;
 *	char error[640];
 *
 *	if (wcx_loader_open(0, 0, &loader, error, sizeof error) < 0)
 *		fail(error);
 *	if (wcx_file_open("model.safetensors.wcx", &file, error, sizeof error) < 0)
 *		fail(error);
 *	for (size_t i = 0; wcx_file_tensor(file, i, &tensor) == 0; i++) {
 *		struct wcx_target target = { tensor.offset, tensor.bytes, allocate_on_gpu(tensor.bytes) };
 *
 *		if (wcx_load(loader, file, &target, 1, stream, error, sizeof error) < 0)
 *			fail(error);
 *	}
 *	wcx_file_close(file);
 *	wcx_loader_close(loader);
 *
 * One call of wcx_load for all tensors of a file is faster than this.
 *
 * Errors: functions that can fail return 0 or a negative errno and then write one line, without a newline, to
 * error[error_bytes].  It names the file and, where they are known, the tensor and the offset.  Longer text is truncated;
 *640 bytes are always enough.  error may be NULL.  On failure *ret is left alone.
 *
 * Threads: different files and loaders are independent.  A file may be used by any number of threads and loaders at a time,
 * a loader by one thread at a time.  A child of fork(2) may use a file of its parent if no other thread was using it then.
 *
 * This header needs only libc: stream is a cudaStream_t, and device addresses are pointers as CUDA returns them.
 */
#ifndef WCX_H
#define WCX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WCX_API __attribute__((visibility("default")))

struct wcx_file;
struct wcx_loader;

/*
 * wcx_file_open - open a packed file
 *
 * Checks the index of the file, decodes the safetensors header and keeps both in memory.  The tiles with the tensors' data
 * are checked when they are read.  The caller closes *ret.
 *
 * Returns 0; -EBADMSG (damaged), -ENOTSUP (a version or feature that this library does not know, or a tensor with U+0000 in
 * its name), -EINVAL (a header that safetensors does not allow; or the environment variable WCX_CPU names no variant of the
 * decoder that this CPU has), -ENOMEM, or the errno of a failed open or read.
 */
WCX_API int wcx_file_open(const char *path, struct wcx_file **ret, char *error, size_t error_bytes);

/* wcx_file_close - close a file; NULL is allowed.  No other call may be using the file. */
WCX_API void wcx_file_close(struct wcx_file *file);

/* wcx_file_bytes - size of the original */
WCX_API uint64_t wcx_file_bytes(const struct wcx_file *file);

/* wcx_file_sha256 - SHA-256 of the original, as the packed file tells it; `wcx verify` checks it */
WCX_API void wcx_file_sha256(const struct wcx_file *file, uint8_t ret[32]);

/* wcx_file_header_bytes - where the tensors' data start in the original: 8 bytes of length, plus the JSON */
WCX_API uint64_t wcx_file_header_bytes(const struct wcx_file *file);

/* One tensor, as the header describes it.  The pointers are valid until the file is closed. */
struct wcx_tensor_info {
	const char *name;       /* UTF-8 */
	const char *dtype;      /* as the header writes it: "I8", "BF16", ... */
	const uint64_t *shape;  /* dim_count sizes */
	size_t dim_count;       /* 0 for a scalar */
	uint64_t offset, bytes; /* of the data in the original; bytes may be 0 */
};

WCX_API size_t wcx_file_tensor_count(const struct wcx_file *file);

/*
 * wcx_file_tensor - describe one tensor
 *
 * index counts from 0, in the order of the tensors' data in the original.  Returns 0, or -EINVAL when there is no such
 * tensor.
 */
WCX_API int wcx_file_tensor(const struct wcx_file *file, size_t index, struct wcx_tensor_info *ret);

/*
 * wcx_file_read - read bytes of the original into host memory, decoding on the CPU
 *
 * Like pread: returns the bytes read, fewer than asked for only at the end of the original, and 0 behind it.  Otherwise
 * -EBADMSG (a tile is damaged), -EIO (a base is missing or damaged), -ENOMEM or the errno of a failed read; dst is then
 * undefined, and the file stays usable.
 */
WCX_API ssize_t wcx_file_read(struct wcx_file *file, void *dst, size_t bytes, uint64_t offset, char *error,
			      size_t error_bytes);

/* A range of the original and where it goes: one tensor, several neighbours, a part of one, or all data. */
struct wcx_target {
	uint64_t offset, bytes; /* within the original; bytes may be 0 */
	void *dst;              /* address of at least `bytes` bytes, on the host or on a GPU; a multiple of 8 is fastest */
};

/*
 * wcx_load_host - load ranges of a file into host memory, decoding on all cores
 *
 * targets may be in any order, but their ranges must not overlap; each tile is decoded once.  threads is how many threads
 * decode: 1 to 256, or 0 for one per core (of those that affinity and control group allow), fewer where there is little to
 * do.  Each call starts its threads, so one call for many tensors is faster than many calls.
 *
 * Returns 0; -EINVAL (a range beyond the end of the original, two that overlap, or more than 256 threads: nothing has been
 * written), -EBADMSG (a tile is damaged), -EIO (a base is missing or damaged), -ENOMEM, or the errno of a failed read.
 * After an error the bytes of the targets are undefined, and the file stays usable.
 */
WCX_API int wcx_load_host(struct wcx_file *file, const struct wcx_target *targets, size_t target_count, unsigned threads,
			  char *error, size_t error_bytes);

/*
 * wcx_loader_open - create a loader for one GPU
 *
 * device is CUDA's number of the GPU.  threads is how many threads read: 1 to 256, or 0 for one per core, at most 16.  Each
 * takes 8 MiB of pinned memory, and 26 MiB of GPU memory: up to 36 when tensors are not at multiples of 8, or loaded in
 * part.  Opening takes up to seconds (it starts the CUDA runtime),
 * so keep a loader for many loads.  It does not survive a fork.  The caller closes *ret.
 *
 * Returns 0; -EINVAL (more than 256 threads), -ENODEV (no such GPU, or a library built without CUDA), -ENOMEM or -EIO (CUDA
 * failed).
 */
WCX_API int wcx_loader_open(int device, unsigned threads, struct wcx_loader **ret, char *error, size_t error_bytes);

/* wcx_loader_close - free a loader; NULL is allowed.  No other call may be using it. */
WCX_API void wcx_loader_close(struct wcx_loader *loader);

/*
 * wcx_file_pin - keep a packed file in pinned memory, to load it again and again
 *
 * Reads all tiles of the file into a copy in pinned memory, on the loader's threads, and checks them.  From then on,
 * wcx_load and all loaders, on any GPU, copy from it at the full speed of the link, and read the file only for tiles that
 * are packed against a base.  What happens to the file makes no difference to them.  The copy takes as much memory as the
 * packed file, beside the page cache, which the system cannot swap out.  It is freed when the file is closed; the loader
 * need not outlive it.  No other call may be using the file.  A file that is pinned already stays so.
 *
 * Returns 0; -EBADMSG (a tile is damaged), -ENOMEM (no memory, or the system does not allow to pin so much of it), -ENODEV,
 * or the errno of a failed read.  After an error the file is as usable as before.
 */
WCX_API int wcx_file_pin(struct wcx_file *file, struct wcx_loader *loader, char *error, size_t error_bytes);

/*
 * wcx_load - load ranges of a file into GPU memory
 *
 * targets may be in any order, but their ranges must not overlap.  On the GPU the load starts after all work that is in
 * stream at the time of the call (NULL: the default stream).  The call returns when all bytes are decoded, checked and in
 * place, so work submitted later, to any stream, sees them.
 *
 * Returns 0; -EINVAL (a range beyond the end of the original, or two that overlap: nothing has been written), -EBADMSG (a
 * tile is damaged), -EIO (the GPU failed, or a base is missing or damaged), -ENOMEM, or the errno of a failed read.  After
 * an error the bytes of the targets are undefined, no others have been written, nothing is in flight, and file and loader
 * stay usable; but after -EIO CUDA itself may refuse further work.
 */
WCX_API int wcx_load(struct wcx_loader *loader, struct wcx_file *file, const struct wcx_target *targets, size_t target_count,
		     void *stream, char *error, size_t error_bytes);

/*
 * A held part of a file: its tiles stay packed in memory, and are decoded on the GPU whenever they are needed, in the order
 * of a stream and without waiting.  That runs models that are larger than the GPU's memory, or more of them at a time.
 */
struct wcx_held;

/*
 * wcx_held_open - read ranges of a file to keep them packed
 *
 * In each target dst is not an address, but an offset from the base that wcx_held_decode gets; multiples of 8 are best. With
 * on_device the packed bytes stay in the memory of the loader's GPU, otherwise in pinned memory of the host.  At most 4 GiB,
 * packed, in one part.  The file must stay open as long as the part; the loader need not.  The caller closes *ret.
 *
 * Returns 0 or an error as wcx_load does.
 */
WCX_API int wcx_held_open(struct wcx_loader *loader, struct wcx_file *file, const struct wcx_target *targets,
			  size_t target_count, int on_device, struct wcx_held **ret, char *error, size_t error_bytes);

/* wcx_held_close - free a part; NULL is allowed.  Its decodes must have ended on the GPU. */
WCX_API void wcx_held_close(struct wcx_held *held);

/* wcx_held_bytes - memory that a part takes where it is held; also what wcx_held_fetch writes */
WCX_API uint64_t wcx_held_bytes(const struct wcx_held *held);

/*
 * wcx_held_fetch - copy a part from the host to a place on the GPU, in the order of a stream
 *
 * place has wcx_held_bytes, at a multiple of 256.  Returns at once.  Does nothing for a part that is held on the GPU.
 * Returns 0 or -EIO.
 */
WCX_API int wcx_held_fetch(struct wcx_held *held, void *place, void *stream, char *error, size_t error_bytes);

/*
 * wcx_held_decode - decode a part to device memory, in the order of a stream
 *
 * Writes the bytes of each target at base (a multiple of 256) plus its dst.  place is where the part was fetched to, which
 * is used up: the next decode needs another fetch.  It is ignored for a part that is held on the GPU; two decodes of such a
 * part must not overlap, so use one stream.  Returns at once: 0 or -EIO.
 */
WCX_API int wcx_held_decode(struct wcx_held *held, void *place, void *base, void *stream, char *error, size_t error_bytes);

/*
 * wcx_held_check - wait for a stream, and tell whether the last decode in it succeeded
 *
 * The checksums of all tiles are checked when a part is opened, so one check after the first decode is enough.  Returns 0,
 * -EBADMSG (the coding of a tile is invalid) or -EIO.
 */
WCX_API int wcx_held_check(struct wcx_held *held, void *stream, char *error, size_t error_bytes);

#ifdef __cplusplus
}
#endif

#endif
