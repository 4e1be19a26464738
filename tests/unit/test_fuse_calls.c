/* SPDX-License-Identifier: MIT */
/* What calls keep, and what becomes of it, without a kernel: the functions of libfuse that reply are replaced. */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/stat.h>

#include "fs/mount/fuse_calls.h"
#include "tests/fixtures/wrapped.h"
#include "tests/unit/check.h"

enum { THREADS = 8, TIMEOUT_MS = 200 };

static struct wcx_calls calls;
static struct wcx_node_table *nodes;
static struct wcx_node *node;
static sem_t replied, may_go_on, freed;
static int replied_errnum;
static bool had_node;        /* when the handle was closed */
static size_t failing_bytes; /* an allocation of at least so many fails; 0: none */
static unsigned finished_count;

WRAPPED(void *, malloc, size_t bytes)
{
	return failing_bytes && bytes >= failing_bytes ? NULL : __real_malloc(bytes);
}

FAKED(int, fuse_reply_err, fuse_req_t req, int errnum)
{
	(void)req;
	replied_errnum = errnum;
	sem_post(&replied);
	return 0;
}

FAKED(const struct fuse_ctx *, fuse_req_ctx, fuse_req_t req)
{
	static const struct fuse_ctx nobody;

	(void)req;
	return &nobody;
}

FAKED(void *, fuse_req_userdata, fuse_req_t req)
{
	(void)req;
	return &calls;
}

FAKED(int, fuse_session_exited, struct fuse_session *session)
{
	(void)session;
	return 0;
}

FAKED(bool, wcx_log_limiter_admit, struct wcx_log_limiter *limiter, const char *file, const char *line, uint64_t now_ms,
      uint64_t *suppressed_ret)
{
	(void)limiter, (void)file, (void)line, (void)now_ms;
	*suppressed_ret = 3;
	return true;
}

static char logged[1024];

static void keep_log(enum fuse_log_level level, const char *format, va_list args)
{
	const size_t used = strlen(logged);

	(void)level;
	vsnprintf(logged + used, sizeof logged - used, format, args);
}

static void set_up(void)
{
	struct wcx_store_entry entry = { .attr.st_mode = S_IFREG | 0444 };

	nodes = wcx_node_table_create();
	node = wcx_node_take(nodes, "model", &entry);
	wcx_calls_init(&calls, nodes);
	CHECK(wcx_calls_start(&calls, NULL, THREADS, TIMEOUT_MS) == 0);
	sem_init(&replied, 0, 0);
	sem_init(&may_go_on, 0, 0);
	sem_init(&freed, 0, 0);
}

static void tear_down(void)
{
	wcx_calls_stop(&calls);
	wcx_calls_destroy(&calls);
	wcx_node_table_free(nodes);
}

static void wait_for_the_store(struct wcx_call *call)
{
	sem_wait(&may_go_on);
	CHECK(wcx_call_reply_err(call, 0) == -EALREADY);
}

/* Only a node that is pinned or open can be told that its file is gone. */
static void close_handle(void *user, fuse_ino_t ino, struct wcx_handle *handle)
{
	struct wcx_store_entry entry;

	(void)user, (void)handle;
	had_node = wcx_node_update(nodes, wcx_ino_node(ino), NULL, &entry) == 0;
	sem_post(&freed);
}

static void finish(struct wcx_call *call)
{
	CHECK(call->user == &calls);
	finished_count++;
}

static void *start(void *call)
{
	wcx_call_start(&calls, NULL, true, call);
	return NULL;
}

static void a_stuck_call_keeps_its_node_until_it_has_closed_its_handle(void)
{
	struct wcx_handle handle = { .refs = 1, .close = close_handle };
	struct wcx_call call = { .serve = wait_for_the_store, .handle = &handle };
	pthread_t thread;

	set_up();
	call.ino = (fuse_ino_t)(uintptr_t)node;
	pthread_create(&thread, NULL, start, &call);
	sem_wait(&replied);
	CHECK(replied_errnum == EIO);
	wcx_handle_put(NULL, call.ino, &handle); /* the reader closes the file */
	wcx_node_drop(nodes, node, 1);           /* and the kernel forgets it */
	sem_post(&may_go_on);
	pthread_join(thread, NULL);
	sem_wait(&freed);
	CHECK(had_node);
	tear_down();
}

static void a_call_for_which_there_is_no_memory_is_finished(void)
{
	const struct wcx_call call = { .serve = wait_for_the_store, .finish = finish, .ino = FUSE_ROOT_ID };

	set_up();
	finished_count = 0;
	failing_bytes = sizeof call;
	wcx_call_start(&calls, NULL, true, &call);
	failing_bytes = 0;
	CHECK(sem_trywait(&replied) == 0 && replied_errnum == ENOMEM && finished_count == 1);
	tear_down();
}

static void what_was_not_logged_of_a_path_is_told_in_one_line(void)
{
	struct wcx_error err;

	set_up();
	logged[0] = '\0';
	wcx_fail(&err, EIO, "damaged");
	wcx_calls_report(&calls, "a\nforged \33[1m", &err);
	CHECK(strcmp(logged, "damaged\na?forged ?[1m: 3 further messages were not logged\n") == 0);
	tear_down();
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_stuck_call_keeps_its_node_until_it_has_closed_its_handle),
		CHECK_TEST(a_call_for_which_there_is_no_memory_is_finished),
		CHECK_TEST(what_was_not_logged_of_a_path_is_told_in_one_line),
	};

	fuse_set_log_func(keep_log);
	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
