/* SPDX-License-Identifier: MIT */
/* Shared by the benchmarks: a clock, median and spread of several rounds, and the origin of figures. */
#ifndef WCX_MEASURE_H
#define WCX_MEASURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

struct measure_spread {
	double median, min, max;
};

static inline double measure_now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* measure_cpu_s - CPU time of the process, which does not count while others use the core */
static inline double measure_cpu_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline int measure_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* measure_spread_of - sorts the values, of which there must be an odd number */
static inline struct measure_spread measure_spread_of(double *values, size_t count)
{
	qsort(values, count, sizeof *values, measure_compare);
	return (struct measure_spread){ values[count / 2], values[0], values[count - 1] };
}

/* The processor's name according to the kernel, or "unknown processor". */
static inline void measure_cpu_name(char *dst, size_t dst_bytes)
{
	FILE *info = fopen("/proc/cpuinfo", "re");
	char line[256];

	snprintf(dst, dst_bytes, "unknown processor");
	while (info && fgets(line, sizeof line, info)) {
		const char *value = strchr(line, ':');

		if (strncmp(line, "model name", strlen("model name")) != 0 || !value)
			continue;
		snprintf(dst, dst_bytes, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
		break;
	}
	if (info)
		fclose(info);
}

/* measure_print_origin - print machine, load, date and command line; call it before the work starts */
static inline void measure_print_origin(int argc, char **argv)
{
	time_t now = time(NULL);
	struct utsname name;
	double load = 0;
	struct tm utc;
	char cpu[256];

	measure_cpu_name(cpu, sizeof cpu);
	uname(&name);
	gmtime_r(&now, &utc);
	getloadavg(&load, 1);
	printf("%s, %ld cores, %s %s, load average at the start %.1f, %04d-%02d-%02d\n", cpu, sysconf(_SC_NPROCESSORS_ONLN),
	       name.sysname, name.release, load, utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday);
	printf("%s", strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0]);
	for (int i = 1; i < argc; i++)
		printf(" %s", argv[i]);
	printf("\n\n");
}

#endif
