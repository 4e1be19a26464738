/* SPDX-License-Identifier: MIT */
/*
 * Tiles: the unit of coding and of random access (docs/format.md, sections 2.3 and 3).
 *
 * A tile is rows x cols elements of elem_bytes bytes, in tile order (row by row).  Coding works on byte planes: plane p
 * is byte p of every element.  Nothing here allocates but the two functions that create scratch; every function may run
 * on any number of threads at a time, each with a scratch of its own.
 */
#ifndef WCX_TILE_H
#define WCX_TILE_H

#include <stddef.h>
#include <stdint.h>

#include "codec/freq_table.h"
#include "codec/result.h"

enum {
	WCX_PLANES_MAX = 8, /* bytes in an element at most */
	WCX_TILE_MAX_ELEMS = 65536,
	WCX_TILE_MAX_BYTES = WCX_TILE_MAX_ELEMS * WCX_PLANES_MAX,
};

/* The numbers of the next three are those of the format. */
enum wcx_tile_mode { WCX_TILE_STORED, WCX_TILE_CODED, WCX_TILE_CONSTANT };
enum wcx_plane_coding { WCX_PLANE_STORED, WCX_PLANE_RANS, WCX_PLANE_CONSTANT };
enum wcx_predictor { WCX_PREDICT_NONE, WCX_PREDICT_LEFT, WCX_PREDICT_UP, WCX_PREDICT_AVG, WCX_PREDICTOR_COUNT };

struct wcx_tile_shape {
	uint32_t rows, cols; /* each at least 1, rows * cols at most WCX_TILE_MAX_ELEMS */
	uint32_t elem_bytes; /* 1, 2, 4 or 8 */
};

/*
 * One tile to decode.  The caller fills everything but result, and owns all that is pointed to; src is untrusted, the
 * rest is what the container's validated index says.
 */
struct wcx_tile_job {
	struct wcx_tile_shape shape;
	enum wcx_tile_mode mode;
	uint64_t constant;                                   /* the element, for WCX_TILE_CONSTANT */
	const struct wcx_freq_table *tables[WCX_PLANES_MAX]; /* by plane; NULL where a plane has none */
	const uint8_t *src;
	size_t src_bytes;
	uint8_t *dst;
	size_t dst_bytes;       /* must be rows * cols * elem_bytes */
	enum wcx_result result; /* set by the decoder */
};

/* One byte plane of a coded tile, as its header describes it, checked against the tile's size. */
struct wcx_plane {
	enum wcx_plane_coding coding;
	enum wcx_predictor predictor;
	uint32_t offset; /* of the payload, from the start of the packed tile; a multiple of 4 */
	uint32_t bytes;  /* of the payload; RANS: even and at least 128; STORED: the elements; CONSTANT: 1 */
};

/* wcx_tile_shape_bytes - the size of the decoded tile, or 0 if the shape breaks a limit */
size_t wcx_tile_shape_bytes(const struct wcx_tile_shape *shape);

/* wcx_tile_has_table - which planes of a job have a frequency table: bit p for plane p */
uint32_t wcx_tile_has_table(const struct wcx_tile_job *job);

/*
 * wcx_tile_parse - read the plane headers of a coded tile
 *
 * Fills planes[0 .. elem_bytes) so that every payload lies within src_bytes.  has_table bit p tells whether plane p has a
 * frequency table.  Returns WCX_OK, WCX_BAD_DATA or WCX_WRONG_SIZE (a shape out of limits); after an error planes is
 * undefined.
 */
enum wcx_result wcx_tile_parse(const struct wcx_tile_shape *shape, uint32_t has_table, const uint8_t *src, size_t src_bytes,
			       struct wcx_plane planes[WCX_PLANES_MAX]);

/* Working memory for decoding: reusable without end, by one thread at a time. */
struct wcx_decode_scratch;
struct wcx_decode_scratch *wcx_decode_scratch_create(void); /* NULL when there is no memory */
void wcx_decode_scratch_free(struct wcx_decode_scratch *scratch);

/*
 * wcx_tile_decode - restore one tile on the CPU
 *
 * Reads exactly job->src_bytes from job->src and writes job->dst_bytes to job->dst.  Does not look at the container's
 * checksum: that is the caller's.  Returns, and leaves in job->result, WCX_OK, WCX_BAD_DATA (malformed) or WCX_WRONG_SIZE
 * (dst_bytes is not the tile's size).  After an error dst is undefined and scratch remains usable.
 */
enum wcx_result wcx_tile_decode(struct wcx_tile_job *job, struct wcx_decode_scratch *scratch);

/* How the planes of a tensor are coded: made once for a tensor by the packer, used for each of its tiles. */
struct wcx_plane_plan {
	enum wcx_plane_coding coding; /* WCX_PLANE_STORED or WCX_PLANE_RANS */
	enum wcx_predictor predictor;
	struct wcx_freq_table table; /* for RANS; a tile with a residual that it gives no frequency is stored */
};

struct wcx_encode_scratch;
struct wcx_encode_scratch *wcx_encode_scratch_create(void); /* NULL when there is no memory */
void wcx_encode_scratch_free(struct wcx_encode_scratch *scratch);

/*
 * wcx_tile_encode - pack one tile
 *
 * src holds the tile's elements in tile order; plan has one entry a plane.  Chooses the cheapest of constant, coded (with
 * each plane coded as planned, constant, or stored when coding it does not pay) and stored.  dst must have room for the
 * decoded size.  *mode_ret, *bytes_ret and, for WCX_TILE_CONSTANT, *constant_ret tell what was made.  Returns WCX_OK or
 * WCX_WRONG_SIZE (a shape out of limits).
 */
enum wcx_result wcx_tile_encode(const struct wcx_tile_shape *shape, const uint8_t *src,
				const struct wcx_plane_plan plan[WCX_PLANES_MAX], struct wcx_encode_scratch *scratch,
				uint8_t *dst, enum wcx_tile_mode *mode_ret, size_t *bytes_ret, uint64_t *constant_ret);

/*
 * wcx_tile_count_residuals - statistics of one plane under one predictor
 *
 * Adds to count[s] how often residual s occurs in plane p of the tile.
 */
void wcx_tile_count_residuals(const struct wcx_tile_shape *shape, const uint8_t *src, uint32_t plane,
			      enum wcx_predictor predictor, struct wcx_encode_scratch *scratch,
			      uint64_t count[WCX_SYMBOL_COUNT]);

#endif
