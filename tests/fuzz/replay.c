/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target once on each file of a directory, without libFuzzer.
 *
 *	replay_TARGET DIRECTORY
 *
 * Each name is printed before its run, so the last one printed is the input that crashed.  Exit status: 0, or 1 when the
 * directory cannot be read or has no file.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

enum { INPUT_MAX_BYTES = 1 << 20 };

static int run_file(const char *dir, const char *name)
{
	uint8_t *buffer = malloc(INPUT_MAX_BYTES), *input = NULL;
	size_t bytes = 0;
	char *path = NULL;
	FILE *in = NULL;

	if (buffer && asprintf(&path, "%s/%s", dir, name) > 0 && (in = fopen(path, "rb")) != NULL) {
		bytes = fread(buffer, 1, INPUT_MAX_BYTES, in);
		input = malloc(bytes ? bytes : 1); /* to the byte, so that sanitizers see reads behind the end */
	}
	if (input) {
		puts(path);
		fflush(stdout);
		for (size_t i = 0; i < bytes; i++)
			input[i] = buffer[i];
		LLVMFuzzerTestOneInput(input, bytes);
	} else {
		perror(name);
	}
	if (in)
		fclose(in);
	free(path);
	free(buffer);
	free(input);
	return input ? 0 : -1;
}

int main(int argc, char **argv)
{
	unsigned count = 0;
	int r = 0;
	DIR *dir;

	if (argc != 2 || (dir = opendir(argv[1])) == NULL) {
		perror(argc == 2 ? argv[1] : "usage: replay_TARGET DIRECTORY");
		return 1;
	}
	for (const struct dirent *entry; r == 0 && (entry = readdir(dir)) != NULL;) {
		if (entry->d_name[0] == '.')
			continue;
		r = run_file(argv[1], entry->d_name);
		count++;
	}
	closedir(dir);
	printf("%u inputs\n", count);
	return r < 0 || count == 0;
}
