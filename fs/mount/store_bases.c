/* SPDX-License-Identifier: MIT */
/* Finds bases in a store, for the images of its pool. */
#include "fs/mount/store_bases.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/read/base_rules.h"
#include "fs/read/base_search.h"
#include "fs/read/packed_index.h"

struct wcx_store_bases {
	const struct wcx_beneath *beneath;
	struct wcx_image_pool *pool;
	struct wcx_packed_index *index;
};

/* A search for one base. */
struct quest {
	struct wcx_store_bases *bases;
	struct wcx_base_check check;
	struct wcx_image *image; /* the result */
};

static int open_beneath(void *user, const char *path, int flags, struct stat *st_ret)
{
	const struct wcx_store_bases *bases = user;

	return wcx_beneath_open(bases->beneath, path, flags, false, st_ret);
}

/* Gets the image from the pool; fd becomes the pool's. */
static struct wcx_image *take_image(struct quest *quest, int fd, const char *path, const struct stat *st,
				    const struct wcx_superblock *sb)
{
	const struct wcx_store_bases *bases = quest->bases;
	const struct wcx_file_id id = wcx_file_id_of_packed(st, sb);
	struct wcx_error why = { "" };
	struct wcx_pooled_image *pooled;
	struct wcx_image *image;
	const int r = wcx_image_pool_open(bases->pool, fd, path, &id, sb, &pooled, &why);

	if (r < 0) {
		wcx_base_check_refuse(&quest->check, r, &why);
		return NULL;
	}
	image = wcx_image_get(pooled->image);
	wcx_image_pool_release(bases->pool, pooled);
	return image;
}

static bool try_path(void *user, const char *path)
{
	struct quest *quest = user;
	struct wcx_superblock sb;
	struct stat st;
	int fd = wcx_beneath_open(quest->bases->beneath, path, O_PATH, false, &st);

	if (fd < 0)
		return false;
	close(fd); /* a device is not even opened */
	fd = S_ISREG(st.st_mode)
		     ? wcx_beneath_open(quest->bases->beneath, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, false, &st)
		     : -EINVAL;
	if (fd < 0)
		return false;
	if (wcx_base_check_file(&quest->check, fd, path, &st,
				!wcx_has_acl(fd) && wcx_beneath_is_passable(quest->bases->beneath, path), &sb))
		quest->image = take_image(quest, fd, path, &st, &sb);
	else
		close(fd);
	return quest->image != NULL;
}

static int find(void *user, const struct wcx_container *dependent, const struct wcx_base *base, struct wcx_image **ret,
		struct wcx_error *err)
{
	struct wcx_store_bases *bases = user;
	const char *path = wcx_container_path(dependent);
	struct quest quest = {
		.bases = bases,
		.check = { .base = base, .reader = geteuid(), .for_others = true },
	};
	char hint[PATH_MAX];

	if (fstat(wcx_container_fd(dependent), &quest.check.dependent) < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	if (!(wcx_base_hint_path(path, base->name, hint) == 0 && try_path(&quest, hint)) &&
	    wcx_packed_index_find(bases->index, base->sha256, base->original_bytes, WCX_INDEX_REFRESH_MS, try_path, &quest) <
		    0)
		return wcx_base_check_fail(&quest.check, "the store", err);
	*ret = quest.image;
	return 0;
}

struct wcx_store_bases *wcx_store_bases_create(const struct wcx_beneath *beneath, struct wcx_image_pool *pool)
{
	struct wcx_store_bases *bases = calloc(1, sizeof *bases);
	const struct wcx_tree_access access = { .open = open_beneath, .user = bases };
	const struct wcx_base_finder finder = { find, bases };

	if (!bases)
		return NULL;
	bases->beneath = beneath;
	bases->pool = pool;
	bases->index = wcx_packed_index_create(&access, NULL);
	if (!bases->index) {
		free(bases);
		return NULL;
	}
	wcx_image_pool_use_finder(pool, &finder);
	return bases;
}

void wcx_store_bases_free(struct wcx_store_bases *bases)
{
	if (!bases)
		return;
	wcx_packed_index_free(bases->index);
	free(bases);
}
