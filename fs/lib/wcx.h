/* SPDX-License-Identifier: MIT */
/*
 * libwcx: reads packed model files, on the CPU or straight into a GPU's memory.
 *
 * A file is an open .wcx file.  It shows the safetensors file that it holds: the tensors that are in it, and where their
 * bytes lie in that file.  A loader belongs to a GPU.  It has threads read packed bytes into pinned buffers, copies them to
 * the GPU and decodes them there, all at the same time.  The host decodes nothing but what is not weights: headers,
 * integers, and tiles of one value.
 *
 * Functions that can fail return 0 or a negative errno, and write one line to error, which names the file, the tensor and
 * the offset that it is about; error may be NULL.  A result that is not 0 leaves *ret as it was.
 *
 * This header needs nothing but libc; stream is a cudaStream_t, and device addresses are pointers as CUDA gives them.
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
 * Checks its index and reads the header of the safetensors file.  *ret is the caller's to close.  Returns 0; -EBADMSG for a
 * damaged file, -EINVAL for a header that safetensors does not allow, -ENOTSUP for a version that is not known, -ENOMEM, or
 * the errno of a failed open or read.
 */
WCX_API int wcx_file_open(const char *path, struct wcx_file **ret, char *error, size_t error_bytes);
WCX_API void wcx_file_close(struct wcx_file *file); /* NULL is fine; no call may be under way */

/* All of the following about files are safe from any number of threads. */

/* wcx_file_bytes - size of the safetensors file */
WCX_API uint64_t wcx_file_bytes(const struct wcx_file *file);

/* wcx_file_header_bytes - where the tensors' data begin: the length in front of the JSON, and the JSON */
WCX_API uint64_t wcx_file_header_bytes(const struct wcx_file *file);

/* A tensor as the header has it.  All that is pointed to lives as long as the file is open. */
struct wcx_tensor_info {
	const char *name;  /* UTF-8 */
	const char *dtype; /* as the header writes it: "I8", "BF16", ... */
	const uint64_t *shape;
	size_t dim_count;
	uint64_t offset, bytes; /* of the data, from the start of the safetensors file */
};

WCX_API size_t wcx_file_tensor_count(const struct wcx_file *file);

/* wcx_file_tensor - tensor number `index`, in the order of their data; -EINVAL if there are not so many */
WCX_API int wcx_file_tensor(const struct wcx_file *file, size_t index, struct wcx_tensor_info *ret);

/*
 * wcx_file_read - read bytes of the safetensors file into the host's memory; decodes on the CPU
 *
 * Like pread: the bytes read, fewer only at the end of the file.  -EBADMSG for a damaged tile, -ENOMEM, or the errno of a
 * failed read; dst is then undefined.
 */
WCX_API ssize_t wcx_file_read(struct wcx_file *file, void *dst, size_t bytes, uint64_t offset, char *error,
			      size_t error_bytes);

/*
 * wcx_loader_open - make a loader for a GPU
 *
 * device is CUDA's number of it.  So many threads read; 0 stands for as many as the machine has cores, but no more than 16.
 * For each of them, 12 MiB of pinned memory and 24 MiB of the GPU's are set aside.  Takes some time: keep it.  *ret is the
 * caller's to close.  Returns 0, -EINVAL (more than 256 threads), -ENODEV (no such GPU, or built without CUDA), -ENOMEM or
 * -EIO.
 */
WCX_API int wcx_loader_open(int device, unsigned threads, struct wcx_loader **ret, char *error, size_t error_bytes);
WCX_API void wcx_loader_close(struct wcx_loader *loader); /* NULL is fine */

/* Where a range of the safetensors file goes: the bytes of a tensor, of several that are neighbours, or all data. */
struct wcx_target {
	uint64_t offset, bytes;
	void *dst; /* device address, at least `bytes` of the caller's; fastest at a multiple of 8 */
};

/*
 * wcx_load - load ranges of a file into the GPU's memory
 *
 * On the GPU this comes after what is in the stream when it is called; the stream may be NULL, the default one.  The call
 * waits for no part of it but once for the whole: when it returns, all is done and checked.  Ranges must not overlap and
 * must lie within the file.  A loader is for one thread at a time.
 *
 * Returns 0; -EINVAL for ranges that are wrong; -EBADMSG for damage, -EIO when the GPU fails, -ENOMEM, or the errno of a
 * failed read.  After an error the targets' contents are undefined, but nothing else has been written and nothing is under
 * way.
 */
WCX_API int wcx_load(struct wcx_loader *loader, struct wcx_file *file, const struct wcx_target *targets, size_t target_count,
		     void *stream, char *error, size_t error_bytes);

#ifdef __cplusplus
}
#endif

#endif
