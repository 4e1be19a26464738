/* SPDX-License-Identifier: MIT */
/* Makes a copy of a packed file in pinned memory. */
#include "fs/lib/pin.h"

#include <errno.h>
#include <sys/mman.h>

#include "codec/arith.h"
#include "cuda/gpu_load.h"
#include "fs/base/file_io.h"
#include "fs/base/parallel.h"
#include "fs/lib/load_plan.h"
#include "fs/read/decoder.h"

enum { HUGE_PAGE_BYTES = 2 << 20 };

struct pinning {
	struct wcx_image *image;
	const struct wcx_load_plan *plan; /* of the whole file; the targets have no addresses */
	uint8_t *bytes;
};

static int check_tile(const struct pinning *pinning, const struct wcx_segment *segment, uint64_t number,
		      struct wcx_error *err)
{
	struct wcx_tile_info info;

	wcx_container_tile(pinning->plan->container, segment, number, &info);
	if (info.mode == WCX_TILE_CONSTANT ||
	    wcx_checksum32(pinning->bytes + info.packed_offset, info.packed_bytes) == info.checksum)
		return 0;
	return wcx_image_fail_tile(pinning->image, segment, &info, wcx_tile_row_offset(segment, &info, 0), -EBADMSG, err);
}

/* Reads and checks the tiles of a task. */
static int read_task(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	const struct pinning *pinning = user;
	const struct wcx_container *container = pinning->plan->container;
	const struct wcx_load_task *task = &pinning->plan->tasks[item];
	struct wcx_tile_info first, last;
	size_t bytes;
	ssize_t n;
	int r = 0;

	(void)loop;
	(void)worker;
	if (task->segment->same_as) /* an earlier segment has these tiles too */
		return 0;
	wcx_container_tile(container, task->segment, task->first_tile, &first);
	wcx_container_tile(container, task->segment, task->first_tile + task->tile_count - 1, &last);
	bytes = (size_t)(last.packed_offset + last.packed_bytes - first.packed_offset);
	n = wcx_read_at(wcx_container_fd(container), pinning->bytes + first.packed_offset, bytes, first.packed_offset);
	if (n < (ssize_t)bytes) /* the file has become shorter */
		return wcx_image_fail_tile(pinning->image, task->segment, &first,
					   wcx_tile_row_offset(task->segment, &first, 0), n < 0 ? (int)n : -EBADMSG, err);
	for (uint64_t i = 0; i < task->tile_count && r == 0; i++)
		r = check_tile(pinning, task->segment, task->first_tile + i, err);
	return r;
}

/* Fills the memory before it is pinned: its pages are then allocated by all threads, and pinning them is quick. */
static int fill(struct wcx_image *image, uint8_t *bytes, unsigned thread_count, struct wcx_error *err)
{
	const struct wcx_target all = { .bytes = wcx_image_bytes(image) };
	struct wcx_load_plan plan;
	int r = wcx_load_plan_make(wcx_image_container(image), 0, &all, 1, &plan, err);

	if (r == 0) {
		struct pinning pinning = { image, &plan, bytes };

		r = wcx_parallel_for(thread_count, plan.task_count, read_task, &pinning, NULL, err);
	}
	wcx_load_plan_free(&plan);
	return r;
}

int wcx_pin_make(struct wcx_image *image, int device, unsigned thread_count, struct wcx_pin *pin, struct wcx_error *err)
{
	const struct wcx_superblock *sb = wcx_container_superblock(wcx_image_container(image));
	const char *path = wcx_container_path(wcx_image_container(image));
	struct wcx_pin made = { .mapped_bytes = WCX_ALIGN_UP((size_t)sb->packed_bytes, (size_t)HUGE_PAGE_BYTES),
				.device = device };
	char reason[WCX_GPU_NAME_BYTES];
	enum wcx_result result;
	int r;

	made.bytes = mmap(NULL, made.mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (made.bytes == MAP_FAILED)
		return wcx_fail(err, ENOMEM, "%s: no memory for a pinned copy of %llu bytes", path,
				(unsigned long long)sb->packed_bytes);
	madvise(made.bytes, made.mapped_bytes, MADV_HUGEPAGE);
	r = fill(image, made.bytes, thread_count, err);
	if (r == 0) {
		result = wcx_gpu_pin(device, made.bytes, made.mapped_bytes, reason);
		if (result != WCX_OK)
			r = wcx_fail(err, -wcx_result_errno(result), "%s: cannot pin %llu bytes: %s", path,
				     (unsigned long long)made.mapped_bytes, reason);
	}
	if (r < 0) {
		munmap(made.bytes, made.mapped_bytes);
		return r;
	}
	*pin = made;
	return 0;
}

void wcx_pin_free(struct wcx_pin *pin)
{
	if (!pin->bytes)
		return;
	wcx_gpu_unpin(pin->device, pin->bytes);
	munmap(pin->bytes, pin->mapped_bytes);
	*pin = (struct wcx_pin){ .bytes = NULL };
}
