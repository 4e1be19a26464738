/* SPDX-License-Identifier: MIT */
/* Decides under which names entries are shown, and where links lead. */
#include "fs/mount/shown_names.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	SUFFIX_BYTES = sizeof ".wcx" - 1,
	LINKS_MAX = 8, /* that lead from one to the next */
};

/* What a link's text names. */
enum destination {
	LEADS_NOWHERE, /* in the store */
	LEADS_TO_PLAIN,
	LEADS_TO_STRIPPED, /* an entry that is shown without its suffix */
};

size_t wcx_stem_bytes(const char *name)
{
	size_t bytes = strlen(name);

	if (bytes <= SUFFIX_BYTES || strcmp(name + bytes - SUFFIX_BYTES, ".wcx") != 0)
		return 0;
	bytes -= SUFFIX_BYTES;
	if ((bytes == 1 && name[0] == '.') || (bytes == 2 && name[0] == '.' && name[1] == '.'))
		return 0;
	return bytes;
}

const char *wcx_last_component(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int read_link(const struct wcx_beneath *beneath, const char *path, char *dst, size_t dst_bytes)
{
	struct stat st;
	const int fd = wcx_beneath_open(beneath, path, O_PATH, true, &st);
	const ssize_t bytes = fd < 0 ? -1 : readlinkat(fd, "", dst, dst_bytes);
	const int r = fd < 0 ? fd : bytes < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	if (r)
		return r;
	if ((size_t)bytes >= dst_bytes)
		return -ENAMETOOLONG;
	dst[bytes] = '\0';
	return 0;
}

/* The path in the store that a link's text names, links and ".." on the way included; false if it is outside. */
static bool resolve(const struct wcx_beneath *beneath, const char *link_path, const char *text, char path[PATH_MAX])
{
	const size_t dir_bytes = beneath->dir_path ? strlen(beneath->dir_path) : 0;
	const int link_dir_bytes = (int)(wcx_last_component(link_path) - link_path);

	if (text[0] != '/')
		return snprintf(path, PATH_MAX, "%.*s%s", link_dir_bytes, link_path, text) < PATH_MAX;
	if (!dir_bytes || strncmp(text, beneath->dir_path, dir_bytes) != 0)
		return false;
	text += dir_bytes;
	if (*text && *text != '/' && beneath->dir_path[dir_bytes - 1] != '/')
		return false;
	snprintf(path, PATH_MAX, "%s", text + strspn(text, "/"));
	return true;
}

static bool is_stripped(const struct wcx_beneath *beneath, const char *path, mode_t mode, int links);

/* Where the text of the link at link_path leads; path becomes the stored path unless that is nowhere. */
static enum destination find_destination(const struct wcx_beneath *beneath, const char *link_path, const char *text,
					 char path[PATH_MAX], int links)
{
	struct stat st;
	int fd;

	if (links == LINKS_MAX || !resolve(beneath, link_path, text, path))
		return LEADS_NOWHERE;
	fd = wcx_beneath_open(beneath, *path ? path : ".", O_PATH, true, &st);
	if (fd < 0)
		return LEADS_NOWHERE;
	close(fd);
	return is_stripped(beneath, path, st.st_mode, links + 1) ? LEADS_TO_STRIPPED : LEADS_TO_PLAIN;
}

/* A link that leads nowhere, such as one to a file that is still being made. */
static bool looks_packed(const char *text)
{
	return text[0] != '/' && wcx_stem_bytes(wcx_last_component(text)) != 0;
}

static bool is_stripped(const struct wcx_beneath *beneath, const char *path, mode_t mode, int links)
{
	char text[PATH_MAX], target[PATH_MAX];
	enum destination destination;

	if (!wcx_stem_bytes(wcx_last_component(path)))
		return false;
	if (S_ISREG(mode))
		return true;
	if (!S_ISLNK(mode) || read_link(beneath, path, text, sizeof text))
		return false;
	destination = find_destination(beneath, path, text, target, links);
	return destination == LEADS_TO_STRIPPED || (destination == LEADS_NOWHERE && looks_packed(text));
}

bool wcx_is_shown_stripped(const struct wcx_beneath *beneath, const char *path, mode_t mode)
{
	return is_stripped(beneath, path, mode, 0);
}

int wcx_shown_target(const struct wcx_beneath *beneath, const char *path, char *dst, size_t dst_bytes)
{
	char text[PATH_MAX], target[PATH_MAX];
	enum destination destination;
	bool strip;
	int at = 0, r = read_link(beneath, path, text, sizeof text);

	if (r)
		return r;
	destination = find_destination(beneath, path, text, target, 0);
	strip = wcx_stem_bytes(wcx_last_component(text)) &&
		(destination == LEADS_TO_STRIPPED ||
		 (destination != LEADS_TO_PLAIN && looks_packed(text) && wcx_stem_bytes(wcx_last_component(path))));
	if (text[0] == '/' && destination != LEADS_NOWHERE) {
		/* Up from the directory of the link to the store, and down from there. */
		dst[0] = '\0';
		for (const char *slash = strchr(path, '/'); slash && (size_t)at < dst_bytes; slash = strchr(slash + 1, '/'))
			at += snprintf(dst + at, dst_bytes - (size_t)at, "../");
		snprintf(text, sizeof text, "%s", *target ? target : ".");
	}
	if (strip)
		text[strlen(text) - SUFFIX_BYTES] = '\0';
	if ((size_t)at + strlen(text) >= dst_bytes)
		return -ENAMETOOLONG;
	strcpy(dst + at, text);
	return 0;
}

/* Whether a text that leads out of the store ends in the link's own path. */
static bool names_own_path(const struct wcx_beneath *beneath, const char *path, const char *text)
{
	const size_t path_bytes = strlen(path), text_bytes = strlen(text);
	char target[PATH_MAX];

	return text_bytes > path_bytes && text[text_bytes - path_bytes - 1] == '/' &&
	       strcmp(text + text_bytes - path_bytes, path) == 0 &&
	       find_destination(beneath, path, text, target, 0) == LEADS_NOWHERE;
}

/* Whether a regular file is stored at a path with the suffix. */
static bool has_packed_namesake(const struct wcx_beneath *beneath, const char *path)
{
	char packed[PATH_MAX];
	struct stat st;
	const bool fits = snprintf(packed, sizeof packed, "%s.wcx", path) < (int)sizeof packed;
	const int fd = fits ? wcx_beneath_open(beneath, packed, O_PATH, false, &st) : -1;

	if (fd < 0)
		return false;
	close(fd);
	return S_ISREG(st.st_mode);
}

bool wcx_leads_to_itself(const struct wcx_beneath *beneath, const char *path)
{
	const char *name = wcx_last_component(path);
	char text[PATH_MAX], shown[PATH_MAX];

	if (read_link(beneath, path, text, sizeof text) || strcmp(text, name) == 0)
		return false;
	if (names_own_path(beneath, path, text))
		return has_packed_namesake(beneath, path);
	return wcx_shown_target(beneath, path, shown, sizeof shown) == 0 && strcmp(shown, name) == 0;
}
