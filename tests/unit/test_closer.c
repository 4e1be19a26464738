/* SPDX-License-Identifier: MIT */
/* Who has something closed does not wait for it, and all is closed in the end, in order. */
#include "fs/mount/closer.h"

#include <semaphore.h>
#include <stddef.h>

#include "codec/arith.h"
#include "tests/unit/check.h"

enum { COUNT = 100 };

struct thing {
	struct wcx_closing closing;
	int number;
};

static sem_t may_close; /* the first */
static int closed_count;

static void close_thing(struct wcx_closing *closing)
{
	const struct thing *thing = (const struct thing *)closing;

	if (thing->number == 0)
		sem_wait(&may_close);
	CHECK(thing->number == closed_count);
	closed_count++;
}

static void a_closing_that_waits_holds_up_nobody(void)
{
	struct wcx_closer *closer = wcx_closer_create();
	struct thing things[COUNT];

	sem_init(&may_close, 0, 0);
	for (int i = 0; i < COUNT; i++) {
		things[i] = (struct thing){ .closing = { .close = close_thing }, .number = i };
		wcx_closer_give(closer, &things[i].closing);
	}
	sem_post(&may_close);
	wcx_closer_free(closer);
	CHECK(closed_count == COUNT);
	sem_destroy(&may_close);
}

static void a_closer_of_nothing_can_be_freed(void)
{
	wcx_closer_free(wcx_closer_create());
	wcx_closer_free(NULL);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_closing_that_waits_holds_up_nobody),
		CHECK_TEST(a_closer_of_nothing_can_be_freed),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
