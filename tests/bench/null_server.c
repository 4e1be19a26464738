/* SPDX-License-Identifier: MIT */
/*
 * A FUSE server that only answers: measures the cost of the kernel alone, and thus the upper bound of a mount.
 *
 *	null_server MOUNTPOINT FILE_MIB|DIR PUSH_THREADS [libfuse options]
 *
 * Shows files "0" to "15" of FILE_MIB MiB, all of the same 64 MiB, or copies of the files in DIR, which may be symbolic
 * links.  Both come from memory, until unmounted or SIGTERM.  With PUSH_THREADS above 0, the first read of a file starts
 * that many threads, which push the rest of the file into the page cache (notify_store), ahead of the reader.  The session
 * has the same settings as that of wcxfs, except for requests of up to 1 MiB.
 */
#define FUSE_USE_VERSION 314

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	FILES_MAX = 64,
	NOISE_FILES = 16,
	FIRST_INO = FUSE_ROOT_ID + 1,
	PUSH_THREADS_MAX = 64,
	PIECE_BYTES = 4 << 20,   /* pushed at a time by a thread */
	NOISE_BYTES = 64 << 20,  /* repeated through each file */
	REQUEST_BYTES = 1 << 20, /* the largest that libfuse before 3.17 accepts */
	BACKGROUND_REQUESTS = 64,
	CONGESTED_REQUESTS = 48,
	EXIT_USAGE = 2,
};

static const double cache_s = 3600;

struct server;

struct pushed_file {
	struct server *server;
	fuse_ino_t ino;
	char name[NAME_MAX + 1];
	uint8_t *data; /* NULL: noise */
	uint64_t bytes;
	atomic_uint_fast64_t next; /* piece */
	pthread_t threads[PUSH_THREADS_MAX];
	unsigned thread_count;
};

struct server {
	struct fuse_session *session;
	uint8_t *noise; /* NOISE_BYTES, then the beginning again: a read or piece never wraps */
	unsigned push_threads;
	atomic_bool stop;
	pthread_mutex_t start_lock; /* protects the thread_count of all files */
	unsigned file_count;
	struct pushed_file files[FILES_MAX];
};

static const void *bytes_at(const struct pushed_file *file, uint64_t offset)
{
	return file->data ? file->data + offset : file->server->noise + offset % NOISE_BYTES;
}

static void attr_of(const struct server *server, fuse_ino_t ino, struct stat *ret)
{
	*ret = (struct stat){ .st_ino = ino, .st_nlink = 1, .st_mode = S_IFDIR | 0555 };
	if (ino != FUSE_ROOT_ID) {
		ret->st_mode = S_IFREG | 0444;
		ret->st_size = (off_t)server->files[ino - FIRST_INO].bytes;
	}
}

static void op_init(void *user, struct fuse_conn_info *conn)
{
	(void)user;
	conn->max_read = REQUEST_BYTES;
	conn->max_write = REQUEST_BYTES; /* the kernel derives its page limit from this */
	conn->max_background = BACKGROUND_REQUESTS;
	conn->congestion_threshold = CONGESTED_REQUESTS;
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct server *server = fuse_req_userdata(req);
	struct fuse_entry_param entry = { .attr_timeout = cache_s, .entry_timeout = cache_s };
	unsigned number = 0;

	while (number < server->file_count && strcmp(server->files[number].name, name) != 0)
		number++;
	if (parent != FUSE_ROOT_ID || number == server->file_count) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	entry.ino = FIRST_INO + number;
	attr_of(server, entry.ino, &entry.attr);
	fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct stat attr;

	(void)info;
	attr_of(fuse_req_userdata(req), ino, &attr);
	fuse_reply_attr(req, &attr, cache_s);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	(void)ino;
	info->keep_cache = 1;
	fuse_reply_open(req, info);
}

/* An offset is the index of a file. */
static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset, struct fuse_file_info *info)
{
	const struct server *server = fuse_req_userdata(req);
	char *buffer = malloc(bytes);
	size_t used = 0;

	(void)ino, (void)info;
	for (unsigned i = (unsigned)offset; buffer && i < server->file_count; i++) {
		const struct stat attr = { .st_ino = server->files[i].ino, .st_mode = S_IFREG };
		size_t taken = fuse_add_direntry(req, buffer + used, bytes - used, server->files[i].name, &attr, i + 1);

		if (taken > bytes - used)
			break;
		used += taken;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

static void *push_loop(void *argument)
{
	struct pushed_file *file = argument;
	const struct server *server = file->server;

	while (!atomic_load(&server->stop)) {
		uint64_t offset = atomic_fetch_add(&file->next, 1) * PIECE_BYTES, left;
		struct fuse_bufvec piece;

		if (offset >= file->bytes)
			break;
		left = file->bytes - offset;
		piece = FUSE_BUFVEC_INIT(left < PIECE_BYTES ? (size_t)left : PIECE_BYTES);
		piece.buf[0].mem = (void *)(uintptr_t)bytes_at(file, offset);
		if (fuse_lowlevel_notify_store(server->session, file->ino, (off_t)offset, &piece, 0))
			break;
	}
	return NULL;
}

/* Starts the threads of the file, once; they begin at the piece behind the current read. */
static void push_start(struct server *server, struct pushed_file *file, uint64_t offset)
{
	pthread_mutex_lock(&server->start_lock);
	if (file->thread_count == 0)
		atomic_store(&file->next, (offset + PIECE_BYTES - 1) / PIECE_BYTES);
	while (file->thread_count < server->push_threads) {
		if (pthread_create(&file->threads[file->thread_count], NULL, push_loop, file))
			break;
		file->thread_count++;
	}
	pthread_mutex_unlock(&server->start_lock);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset, struct fuse_file_info *info)
{
	struct server *server = fuse_req_userdata(req);
	struct pushed_file *file = &server->files[ino - FIRST_INO];
	uint64_t start = (uint64_t)offset, left = start < file->bytes ? file->bytes - start : 0;

	(void)info;
	if (bytes > left)
		bytes = (size_t)left;
	if (server->push_threads)
		push_start(server, file, start + bytes);
	fuse_reply_buf(req, bytes_at(file, start), bytes);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.open = op_open,
	.read = op_read,
	.readdir = op_readdir,
};

static struct pushed_file *add_file(struct server *server, const char *name)
{
	struct pushed_file *file = &server->files[server->file_count];

	file->server = server;
	file->ino = FIRST_INO + server->file_count++;
	snprintf(file->name, sizeof file->name, "%s", name);
	return file;
}

static int make_noise(struct server *server, uint64_t file_mib)
{
	uint64_t word = 0;

	server->noise = mmap(NULL, NOISE_BYTES + PIECE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (server->noise == MAP_FAILED)
		return -errno;
	for (size_t i = 0; i < NOISE_BYTES; i += sizeof word) {
		word += UINT64_C(0x9E3779B97F4A7C15);
		memcpy(server->noise + i, &word, sizeof word);
	}
	memcpy(server->noise + NOISE_BYTES, server->noise, PIECE_BYTES);
	for (unsigned i = 0; i < NOISE_FILES; i++) {
		char name[8];

		snprintf(name, sizeof name, "%u", i);
		add_file(server, name)->bytes = file_mib << 20;
	}
	return 0;
}

static int read_whole(int fd, struct pushed_file *file)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	file->data = malloc((size_t)st.st_size + 1);
	if (!file->data)
		return -ENOMEM;
	while (file->bytes < (uint64_t)st.st_size) {
		ssize_t n = read(fd, file->data + file->bytes, (size_t)st.st_size - file->bytes);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		file->bytes += (uint64_t)n;
	}
	return 0;
}

static int copy_files(struct server *server, const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int ret = dir ? 0 : -errno;

	while (ret == 0 && (entry = readdir(dir))) {
		int fd;

		if (entry->d_type != DT_REG && entry->d_type != DT_LNK)
			continue;
		if (server->file_count == FILES_MAX) {
			ret = -E2BIG;
			break;
		}
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
		ret = read_whole(fd, add_file(server, entry->d_name));
		if (fd >= 0)
			close(fd);
	}
	if (dir)
		closedir(dir);
	return ret;
}

static int server_init(struct server *server, const char *files, unsigned push_threads)
{
	char *end;
	uint64_t file_mib = strtoull(files, &end, 10);

	server->push_threads = push_threads;
	pthread_mutex_init(&server->start_lock, NULL);
	if (*end)
		return copy_files(server, files);
	return file_mib ? make_noise(server, file_mib) : -EINVAL;
}

static int server_run(struct server *server, const char *mountpoint)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int ret = -ENOMEM;

	if (!config)
		goto out;
	fuse_loop_cfg_set_clone_fd(config, 1);
	ret = fuse_set_signal_handlers(server->session);
	if (ret)
		goto out;
	if (fuse_session_mount(server->session, mountpoint)) {
		ret = -EIO; /* libfuse has printed the reason */
		goto out_handlers;
	}
	ret = fuse_session_loop_mt(server->session, config);
	/* A pushing thread may wait for a page that an unanswered read keeps locked; unmounting unlocks it. */
	atomic_store(&server->stop, true);
	fuse_session_unmount(server->session);
	for (unsigned f = 0; f < server->file_count; f++)
		for (unsigned i = 0; i < server->files[f].thread_count; i++)
			pthread_join(server->files[f].threads[i], NULL);
out_handlers:
	fuse_remove_signal_handlers(server->session);
out:
	fuse_loop_cfg_destroy(config);
	return ret > 0 ? 0 : ret; /* above 0: the signal that ended the loop */
}

int main(int argc, char **argv)
{
	static struct server server;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	unsigned long push_threads = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
	int ret;

	if (argc < 4 || push_threads > PUSH_THREADS_MAX) {
		fprintf(stderr, "usage: null_server MOUNTPOINT FILE_MIB|DIR PUSH_THREADS [libfuse options]\n");
		return EXIT_USAGE;
	}
	ret = server_init(&server, argv[2], (unsigned)push_threads);
	if (ret)
		goto out;
	ret = fuse_opt_add_arg(&args, argv[0]);
	if (!ret)
		ret = fuse_opt_add_arg(&args, "-oro,subtype=null,max_read=1048576"); /* REQUEST_BYTES, for the kernel */
	for (int i = 4; i < argc && !ret; i++)
		ret = fuse_opt_add_arg(&args, argv[i]);
	if (ret)
		goto out;
	server.session = fuse_session_new(&args, &ops, sizeof ops, &server);
	ret = server.session ? server_run(&server, argv[1]) : -EINVAL;
out:
	if (ret)
		fprintf(stderr, "null_server: %s: %s\n", argv[1], strerror(-ret));
	if (server.session)
		fuse_session_destroy(server.session);
	fuse_opt_free_args(&args);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}
