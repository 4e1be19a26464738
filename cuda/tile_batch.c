/* SPDX-License-Identifier: MIT */
/* Turns tile jobs into the control of a batch (cuda/tile_batch.h). */
#include "cuda/tile_batch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "codec/le.h"
#include "codec/tile_layout.h"
#include "cuda/block_warps.h"

/* The tables of a field, and where the batch has them. */
struct table_set {
	const struct wcx_freq_table *tables;
	uint32_t count, first; /* first: number in the batch */
	bool is_pair;
};

#define NO_KIND UINT32_MAX

/* What the host knows about a kind. */
struct kind_items {
	const struct wcx_recipe *recipe; /* with codings and base_kind, the key of the kind */
	uint32_t codings;                /* of all fields, as in the header of a tile */
	uint32_t base_kind;              /* of a fused kind, by the order of adding; else NO_KIND */
	uint8_t kernel, table_count;
	uint32_t item_count;       /* without those that are fused with a difference */
	uint32_t place, next_item; /* while the control is written: of the kind, and where its next item goes */
};

/*
 * Input is in the order of adding; the counts are its cursors.  Output is in the order of launches: wcx_tile_batch_finish
 * moves the cursor `out` over kinds, items and blocks of the control.
 */
struct wcx_tile_batch {
	struct wcx_batch_limits limits;
	struct wcx_batch_layout layout;
	uint32_t item_count, kind_count, set_count, table_count, place_count;
	struct {
		uint32_t kind, item, block;
	} out;
	struct wcx_tile_item *items;
	struct wcx_payload_place *places;
	struct wcx_batch_kind *kinds;
	struct kind_items *kind_items; /* for each of kinds */
	struct table_set *sets;
	uint32_t *order;  /* output: kinds in the order of the control, by their number in kinds */
	uint32_t *blocks; /* output: the kind of the control that each block begins with */
};

struct wcx_tile_batch *wcx_tile_batch_create(const struct wcx_batch_limits *limits)
{
	struct wcx_tile_batch *batch = calloc(1, sizeof *batch);

	if (!batch)
		return NULL;
	batch->limits = *limits;
	batch->items = calloc(limits->items, sizeof *batch->items);
	batch->places = calloc(limits->places, sizeof *batch->places);
	batch->kinds = calloc(limits->kinds, sizeof *batch->kinds);
	batch->kind_items = calloc(limits->kinds, sizeof *batch->kind_items);
	batch->sets = calloc(limits->tables, sizeof *batch->sets);
	batch->order = calloc(limits->kinds, sizeof *batch->order);
	batch->blocks = calloc(limits->items, sizeof *batch->blocks);
	if (batch->items && batch->places && batch->kinds && batch->kind_items && batch->sets && batch->order &&
	    batch->blocks)
		return batch;
	wcx_tile_batch_free(batch);
	return NULL;
}

void wcx_tile_batch_free(struct wcx_tile_batch *batch)
{
	if (!batch)
		return;
	free(batch->items);
	free(batch->places);
	free(batch->kinds);
	free(batch->kind_items);
	free(batch->sets);
	free(batch->order);
	free(batch->blocks);
	free(batch);
}

static void set_offsets(uint32_t items, uint32_t places, uint32_t kinds, uint32_t tables, uint32_t blocks,
			struct wcx_batch_layout *layout)
{
	layout->places_offset = items * sizeof(struct wcx_tile_item);
	layout->kinds_offset = layout->places_offset + places * sizeof(struct wcx_payload_place);
	layout->tables_offset = layout->kinds_offset + kinds * sizeof(struct wcx_batch_kind);
	layout->blocks_offset = layout->tables_offset + tables * sizeof(struct wcx_batch_table);
	layout->left_offset = layout->blocks_offset + blocks * sizeof(uint32_t);
	layout->control_bytes = layout->left_offset + kinds * sizeof(uint32_t);
}

size_t wcx_tile_batch_capacity(const struct wcx_batch_limits *limits)
{
	struct wcx_batch_layout layout;

	set_offsets(limits->items, limits->places, limits->kinds, limits->tables, limits->items, &layout);
	return layout.control_bytes;
}

void wcx_tile_batch_clear(struct wcx_tile_batch *batch)
{
	batch->item_count = batch->kind_count = batch->set_count = batch->table_count = batch->place_count = 0;
}

/* --- kinds --- */

/* The number of a field's first table.  Neighbouring tiles mostly share tables: the latest set is searched first. */
static uint32_t first_table(struct wcx_tile_batch *batch, const struct wcx_field *field)
{
	struct table_set *set;

	for (uint32_t i = batch->set_count; i > 0; i--) {
		set = &batch->sets[i - 1];
		if (set->tables == field->tables && set->count == field->table_count && set->is_pair == field->is_pair)
			return set->first;
	}
	set = &batch->sets[batch->set_count++];
	*set = (struct table_set){ field->tables, field->table_count, batch->table_count, field->is_pair };
	batch->table_count += field->table_count;
	return set->first;
}

static struct wcx_batch_field describe_field(struct wcx_tile_batch *batch, const struct wcx_recipe *recipe,
					     const struct wcx_coded_field *coded)
{
	const struct wcx_field *field = &recipe->fields[coded->field];

	return (struct wcx_batch_field){
		.table = first_table(batch, field),
		.base = field->base,
		.width = field->width,
		.shift = coded->shift,
		.table_count = field->table_count,
		.choice_bits = (uint8_t)wcx_choice_bits(field),
		.steps = (uint8_t)wcx_field_steps(field, recipe->elem_bytes),
		.is_pair = field->is_pair,
		.has_zero = field->has_zero,
		.by_context = field->by_context,
	};
}

static struct wcx_batch_plane describe_plane(const struct wcx_recipe *recipe, const struct wcx_raw_plane *plane)
{
	const uint64_t bits = wcx_bit_range(plane->shift, plane->width);

	return (struct wcx_batch_plane){
		.mask = wcx_repeat(wcx_place_bits(recipe, bits), recipe->elem_bytes),
		.width = plane->width,
		.unit_bits = (uint32_t)__builtin_ctz(wcx_unit_lines(plane->width, recipe->elem_bytes)),
	};
}

/* The constant fields, with their numbers in the header of a tile. */
static void describe_constants(const struct wcx_recipe *recipe, uint32_t codings, const struct wcx_tile_layout *layout,
			       struct wcx_batch_kind *kind)
{
	const uint32_t carrier = layout->coded_count ? layout->coded[layout->coded_count - 1].field : WCX_FIELDS_MAX;
	uint8_t number = 0, shift = 0;

	for (uint32_t f = 0; f < recipe->field_count; f++) {
		const uint32_t coding = wcx_tile_coding(codings, f);

		if (coding == WCX_FIELD_CONSTANT) {
			kind->constants[kind->constant_count].number = number;
			kind->constants[kind->constant_count++].shift = shift;
		}
		number = (uint8_t)(number + (coding != WCX_FIELD_RAW && f != carrier));
		shift = (uint8_t)(shift + recipe->fields[f].width);
	}
}

/*
 * The width of the raw field below the carrier, 0 if there is none; -1 if the element has any other fields, or they are
 * coded differently.
 */
static int raw_bits_below(const struct wcx_recipe *recipe, const struct wcx_tile_layout *layout)
{
	const struct wcx_coded_field *carrier = &layout->coded[0];

	if (layout->coded_count != 1 || carrier->field + 1u != recipe->field_count ||
	    (carrier->shift ? carrier->field != 1 || layout->plane_count == 0 : layout->plane_count != 0))
		return -1;
	return carrier->shift;
}

/* The kernel for elements of this size, of the four that begin with `first`; WCX_KERNEL_COUNT if there is none. */
static enum wcx_tile_kernel any_kernel(uint32_t elem_bytes, enum wcx_tile_kernel first)
{
	if (!wcx_elem_bytes_are_known(elem_bytes))
		return WCX_KERNEL_COUNT;
	return (enum wcx_tile_kernel)((int)first + __builtin_ctz(elem_bytes));
}

/* Whether runs choose among sets of tables in some field. */
static bool has_sets(const struct wcx_recipe *recipe)
{
	bool ret = false;

	for (uint32_t f = 0; f < recipe->field_count; f++)
		ret |= recipe->fields[f].set_bits != 0;
	return ret;
}

static enum wcx_tile_kernel difference_kernel_for(const struct wcx_batch_limits *limits, const struct wcx_recipe *recipe,
						  const struct wcx_tile_layout *layout)
{
	const int raw = raw_bits_below(recipe, layout);
	const struct wcx_field *carrier = &recipe->fields[recipe->field_count - 1];

	if (carrier->has_escapes && layout->coded_count == 1)
		return WCX_KERNEL_DIFFERENCE_ESCAPES;
	if (has_sets(recipe))
		return any_kernel(recipe->elem_bytes, WCX_KERNEL_DIFFERENCE_ANY_1);
	if (raw >= 0 && carrier->base == 0 && (carrier->by_context || recipe->context_count == 0)) {
		if (recipe->elem_bytes == 1 && raw == 0 && !carrier->is_pair)
			return WCX_KERNEL_DIFFERENCE_BYTES;
		if (recipe->elem_bytes == 1 && raw == 0 && recipe->difference == WCX_DIFFERENCE_INTEGER)
			return WCX_KERNEL_DIFFERENCE_BYTE_PAIRS;
		if (recipe->elem_bytes == 2 && (raw == 0 || raw == 2 || raw == 4) &&
		    recipe->difference == WCX_DIFFERENCE_FLOAT)
			return (enum wcx_tile_kernel)(WCX_KERNEL_DIFFERENCE_HALVES_0 + raw / 2);
	}
	/* The compact tables of both fields fit where eight tables of the usual size do. */
	if (limits->carrier_tables == WCX_CARRIER_TABLES_MAX && recipe->elem_bytes == 2 &&
	    recipe->difference == WCX_DIFFERENCE_FLOAT && layout->coded_count == 2 && layout->plane_count == 0 &&
	    recipe->field_count == 2 && recipe->fields[0].base == 0 && carrier->base == 0)
		return WCX_KERNEL_DIFFERENCE_TWO;
	return any_kernel(recipe->elem_bytes, WCX_KERNEL_DIFFERENCE_ANY_1);
}

/* Whether the keys of the thresholds follow each other. */
static bool has_ladder(const struct wcx_recipe *recipe)
{
	for (uint32_t t = 1; t + 1 < recipe->context_count; t++)
		if (recipe->thresholds[t] != recipe->thresholds[0] + t)
			return false;
	return true;
}

/* The kernel for a difference with its base, given the kernels for each alone; WCX_KERNEL_COUNT if there is none. */
static enum wcx_tile_kernel fused_kernel(const struct wcx_batch_limits *limits, enum wcx_tile_kernel of_base,
					 enum wcx_tile_kernel kernel, uint32_t difference)
{
	if (limits->carrier_tables < WCX_CARRIER_TABLES_MAX)
		return WCX_KERNEL_COUNT;
	if (kernel == WCX_KERNEL_DIFFERENCE_BYTES && of_base == WCX_KERNEL_PAIRS_FOLD &&
	    difference == WCX_DIFFERENCE_INTEGER)
		return WCX_KERNEL_FUSED_BYTES;
	if (kernel == WCX_KERNEL_DIFFERENCE_BYTE_PAIRS && of_base == WCX_KERNEL_PAIRS_FOLD)
		return WCX_KERNEL_FUSED_BYTE_PAIRS;
	if (kernel == WCX_KERNEL_DIFFERENCE_ESCAPES && of_base == WCX_KERNEL_HALVES_PAIRS_8)
		return WCX_KERNEL_FUSED_HALVES_PAIRS_8;
	return WCX_KERNEL_COUNT;
}

/* The kernel for a tile that was parsed; WCX_KERNEL_COUNT if there is none. */
static enum wcx_tile_kernel kernel_for(const struct wcx_batch_limits *limits, const struct wcx_recipe *recipe,
				       const struct wcx_tile_layout *layout)
{
	const int raw = raw_bits_below(recipe, layout);
	const struct wcx_field *carrier = &recipe->fields[recipe->field_count - 1];
	const bool folds = recipe->transform == WCX_TRANSFORM_FOLD;

	if (recipe->difference != WCX_DIFFERENCE_NONE)
		return difference_kernel_for(limits, recipe, layout);
	if (raw >= 0 && !carrier->has_zero) {
		if (recipe->elem_bytes == 1 && carrier->is_pair && folds)
			return WCX_KERNEL_PAIRS_FOLD;
		if (recipe->elem_bytes == 1 && raw <= 4 && !carrier->is_pair && folds)
			return (enum wcx_tile_kernel)(WCX_KERNEL_BYTES_FOLD_1 + raw - 1);
		if (recipe->elem_bytes == 1 && raw <= 4 && !carrier->is_pair &&
		    (raw > 0 || recipe->transform == WCX_TRANSFORM_NONE))
			return (enum wcx_tile_kernel)(WCX_KERNEL_BYTES_0 + raw);
		if (recipe->elem_bytes == 2 && carrier->is_pair && (raw == 8 || raw == 11) &&
		    recipe->transform == WCX_TRANSFORM_ROTATE)
			return raw == 8 ? WCX_KERNEL_HALVES_PAIRS_8 : WCX_KERNEL_HALVES_PAIRS_11;
		if (recipe->elem_bytes == 2 && !carrier->is_pair && raw >= 5 && raw <= 9 &&
		    recipe->transform == WCX_TRANSFORM_ROTATE)
			return (enum wcx_tile_kernel)(WCX_KERNEL_HALVES_5 + raw - 5);
		if (recipe->elem_bytes == 4 && !carrier->is_pair && raw >= 20 && raw <= 24 &&
		    recipe->transform == WCX_TRANSFORM_ROTATE)
			return (enum wcx_tile_kernel)(WCX_KERNEL_SINGLES_20 + raw - 20);
	}
	return any_kernel(recipe->elem_bytes, WCX_KERNEL_ANY_1);
}

/* Adds a kind, for which there must be space. */
static void add_kind(struct wcx_tile_batch *batch, const struct wcx_recipe *recipe, uint32_t codings,
		     const struct wcx_tile_layout *layout, enum wcx_tile_kernel kernel, uint32_t base_kind)
{
	struct wcx_batch_kind *kind = &batch->kinds[batch->kind_count];
	const uint32_t run = recipe->run_elems ? recipe->run_elems : (uint32_t)WCX_TILE_MAX_ELEMS;
	uint8_t table_count = 1;

	*kind = (struct wcx_batch_kind){
		.run_factor = (1u << WCX_RUN_FACTOR_BITS) / (run / WCX_RUN_ELEMS) + 1,
		.fold_mask = (uint32_t)wcx_repeat(wcx_place_bits(recipe, wcx_fold_bits(recipe)), 1),
		.transform = recipe->transform,
		.predictor = recipe->predictor,
		.difference = recipe->difference,
		.plane_count = (uint8_t)layout->plane_count,
		.coded_count = (uint8_t)layout->coded_count,
	};
	memcpy(kind->thresholds, recipe->thresholds, sizeof kind->thresholds);
	for (uint32_t c = 0; c < layout->coded_count; c++) {
		kind->coded[c] = describe_field(batch, recipe, &layout->coded[c]);
		table_count = recipe->fields[layout->coded[c].field].table_count;
		kind->has_sets = recipe->fields[layout->coded[c].field].set_bits != 0;
	}
	if (kind->has_sets && kernel == WCX_KERNEL_DIFFERENCE_ESCAPES)
		table_count = WCX_MAX(table_count, WCX_CONTEXTS_MAX + 1); /* the shape of a launch that has sets */
	else if (kind->has_sets)
		table_count = 1; /* that are built */
	for (uint32_t p = 0; p < layout->plane_count; p++)
		kind->planes[p] = describe_plane(recipe, &layout->planes[p]);
	describe_constants(recipe, codings, layout, kind);
	batch->kind_items[batch->kind_count++] = (struct kind_items){
		.recipe = recipe,
		.codings = codings,
		.base_kind = base_kind,
		.kernel = (uint8_t)kernel,
		.table_count = table_count,
	};
}

/* The number of the kind with this key; kind_count if there is none.  The latest kind is searched first. */
static uint32_t find_kind(const struct wcx_tile_batch *batch, const struct wcx_recipe *recipe, uint32_t codings,
			  uint32_t base_kind)
{
	for (uint32_t i = batch->kind_count; i > 0; i--) {
		const struct kind_items *of = &batch->kind_items[i - 1];

		if (of->recipe == recipe && of->codings == codings && of->base_kind == base_kind)
			return i - 1;
	}
	return batch->kind_count;
}

/* --- items --- */

static bool has_space(const struct wcx_tile_batch *batch, bool for_new_kind)
{
	const struct wcx_batch_limits *limits = &batch->limits;

	return batch->item_count < limits->items && limits->places - batch->place_count >= WCX_FIELDS_MAX &&
	       (!for_new_kind ||
		(batch->kind_count < limits->kinds && limits->tables - batch->table_count >= WCX_TILE_TABLES_MAX));
}

static struct wcx_payload_place place_payload(const struct wcx_recipe *recipe, const struct wcx_coded_field *coded,
					      uint32_t elems)
{
	return (struct wcx_payload_place){
		.choices = coded->offset - wcx_choices_bytes(recipe, &recipe->fields[coded->field], elems),
		.states = coded->offset,
		.words = coded->offset + coded->states_bytes,
		.words_bytes = coded->words_bytes,
	};
}

bool wcx_tile_batch_takes(const struct wcx_batch_limits *limits, const struct wcx_recipe *recipe)
{
	for (uint32_t f = 0; f < recipe->field_count; f++) {
		const struct wcx_field *field = &recipe->fields[f];

		if (field->has_escapes
			    ? limits->carrier_tables < WCX_CARRIER_TABLES_MAX || recipe->difference != WCX_DIFFERENCE_FLOAT
			    : field->table_count > limits->carrier_tables && !field->set_bits)
			return false;
	}
	return true;
}

/*
 * The kernel for a difference that takes the item added last as its base, of whose kind the number is returned as well; the
 * kernel of the difference alone if they cannot be fused.
 */
static enum wcx_tile_kernel fuse(const struct wcx_tile_batch *batch, const struct wcx_recipe *recipe,
				 const struct wcx_tile_places *places, uint32_t elems, enum wcx_tile_kernel alone,
				 uint32_t *base_kind_ret)
{
	const struct wcx_tile_item *base = batch->item_count ? &batch->items[batch->item_count - 1] : NULL;
	const struct kind_items *of = base ? &batch->kind_items[base->kind] : NULL;
	const uint32_t field = recipe->field_count - 1u;
	enum wcx_tile_kernel kernel;

	if (!base || base->dst != places->base || base->elems != elems || of->recipe->elem_bytes != recipe->elem_bytes ||
	    base->exceptions_carried)
		return alone;
	kernel = fused_kernel(&batch->limits, (enum wcx_tile_kernel)of->kernel, alone, recipe->difference);
	/* Of bytes, the key may depend on bits of the base that are known last. */
	if (kernel == WCX_KERNEL_COUNT || (kernel == WCX_KERNEL_FUSED_BYTES && recipe->fields[field].table_count > 1) ||
	    (kernel == WCX_KERNEL_FUSED_HALVES_PAIRS_8 && !has_ladder(recipe)) || recipe->fields[field].set_bits)
		return alone;
	*base_kind_ret = base->kind;
	return kernel;
}

enum wcx_result wcx_tile_batch_add(struct wcx_tile_batch *batch, const struct wcx_tile_job *job,
				   const struct wcx_tile_places *places, bool *added_ret)
{
	const struct wcx_recipe *recipe = job->recipe;
	const uint32_t elems = job->dims.rows * job->dims.cols;
	struct wcx_tile_layout layout;
	struct wcx_tile_item *item = &batch->items[batch->item_count];
	enum wcx_result result = wcx_tile_parse(&job->dims, recipe, job->src, job->src_bytes, &layout);
	enum wcx_tile_kernel kernel;
	uint32_t codings, kind, base_kind = NO_KIND;

	*added_ret = false;
	if (result != WCX_OK)
		return result;
	kernel = kernel_for(&batch->limits, recipe, &layout);
	if (kernel == WCX_KERNEL_COUNT || !wcx_tile_batch_takes(&batch->limits, recipe))
		return WCX_BAD_DATA;
	codings = wcx_le32_read(job->src) & ((1u << 2 * WCX_FIELDS_MAX) - 1);
	if (places->takes_base)
		kernel = fuse(batch, recipe, places, elems, kernel, &base_kind);
	kind = find_kind(batch, recipe, codings, base_kind);
	if (!has_space(batch, kind == batch->kind_count))
		return WCX_OK;
	if (kind == batch->kind_count)
		add_kind(batch, recipe, codings, &layout, kernel, base_kind);
	*item = (struct wcx_tile_item){
		.dst = places->dst,
		.base = places->base,
		.src = places->src,
		.elems = elems,
		.cols = job->dims.cols,
		.planes = layout.plane_count ? layout.planes[0].offset : 0,
		.exceptions = layout.exception_offset,
		.exception_count = (uint16_t)layout.exception_count,
		.plane_carried = layout.plane_carried != 0,
		.exceptions_carried = layout.exception_carried != 0,
		.number = batch->item_count,
		.kind = kind,
		.others = batch->place_count,
	};
	for (uint32_t c = 0; c < layout.coded_count; c++) {
		struct wcx_payload_place place = place_payload(recipe, &layout.coded[c], elems);

		if (c + 1 == layout.coded_count)
			item->carrier = place;
		else
			batch->places[batch->place_count++] = place;
	}
	batch->kind_items[kind].item_count++;
	if (base_kind != NO_KIND)
		batch->kind_items[base_kind].item_count--;
	batch->item_count++;
	*added_ret = true;
	return WCX_OK;
}

/* --- launches --- */

/* Appends the kinds of a kernel to the control, each with a range of items. */
static void place_kinds(struct wcx_tile_batch *batch, struct wcx_batch_launch *launch)
{
	launch->first_kind = batch->out.kind;
	for (uint32_t i = 0; i < batch->kind_count; i++) {
		const struct kind_items *of = &batch->kind_items[i];

		if (of->kernel != launch->kernel || !of->item_count)
			continue;
		batch->order[batch->out.kind++] = i;
		batch->kinds[i].first_item = batch->out.item;
		batch->out.item += of->item_count;
		launch->table_count = WCX_MAX(launch->table_count, of->table_count);
		if (of->base_kind != NO_KIND)
			launch->base_table_count =
				WCX_MAX(launch->base_table_count, batch->kind_items[of->base_kind].table_count);
	}
	launch->kind_count = batch->out.kind - launch->first_kind;
}

/*
 * Appends the blocks of a launch, which begin at equal distances in its items.  There are as many as can run concurrently,
 * but no more than give each warp that takes items one of them.
 */
static void place_blocks(struct wcx_tile_batch *batch, struct wcx_batch_launch *launch, uint32_t item_count)
{
	const uint32_t warps = wcx_block_warps_max(launch->kernel, launch->table_count);
	const bool fills = wcx_block_fills_multiprocessor(launch->kernel, launch->table_count);
	const uint32_t concurrent = batch->limits.blocks / (fills ? 2 : 1);
	const uint32_t share = WCX_DIV_UP(batch->item_count, concurrent);
	uint32_t kind = launch->first_kind, kind_begin = 0; /* the kind's first item in the launch */

	launch->first_block = batch->out.block;
	launch->block_warps = WCX_MIN(share, warps);
	launch->block_count = WCX_MIN(WCX_DIV_UP(item_count, launch->block_warps), concurrent);
	for (uint32_t b = 0; b < launch->block_count; b++) {
		const uint32_t block_begin = (uint32_t)((uint64_t)item_count * b / launch->block_count);

		while (block_begin >= kind_begin + batch->kind_items[batch->order[kind]].item_count)
			kind_begin += batch->kind_items[batch->order[kind++]].item_count;
		batch->blocks[batch->out.block++] = kind;
	}
}

/* The kernel of [first, end) with the fewest items, but some; end if there are no items. */
static uint8_t smallest_kernel(const uint32_t items[WCX_KERNEL_COUNT], uint8_t first, uint8_t end)
{
	uint8_t smallest = end;

	for (uint8_t k = first; k < end; k++)
		if (items[k] && (smallest == end || items[k] < items[smallest]))
			smallest = k;
	return smallest;
}

/* Differences come after all others, which may decode their bases; those that bring their bases along come first. */
static uint8_t next_kernel(const uint32_t items[WCX_KERNEL_COUNT])
{
	uint8_t ret = smallest_kernel(items, WCX_KERNEL_FUSED_FIRST, WCX_KERNEL_COUNT);

	if (ret == WCX_KERNEL_COUNT)
		ret = smallest_kernel(items, 0, WCX_KERNEL_DIFFERENCE_FIRST);
	if (ret == WCX_KERNEL_DIFFERENCE_FIRST)
		ret = smallest_kernel(items, WCX_KERNEL_DIFFERENCE_FIRST, WCX_KERNEL_FUSED_FIRST);
	return ret < WCX_KERNEL_FUSED_FIRST || items[ret] ? ret : (uint8_t)WCX_KERNEL_COUNT;
}

/* Gives the kinds that are in no launch a place in the control. */
static void place_rest(struct wcx_tile_batch *batch)
{
	for (uint32_t i = 0; i < batch->kind_count; i++)
		if (!batch->kind_items[i].item_count)
			batch->order[batch->out.kind++] = i;
}

/* Each launch overlaps the end of the previous one.  The largest comes last, to overlap the ends of all others. */
const struct wcx_batch_layout *wcx_tile_batch_finish(struct wcx_tile_batch *batch)
{
	uint32_t items[WCX_KERNEL_COUNT] = { 0 };
	bool differs = false;

	for (uint32_t i = 0; i < batch->kind_count; i++)
		items[batch->kind_items[i].kernel] += batch->kind_items[i].item_count;
	batch->layout = (struct wcx_batch_layout){ .items = batch->item_count };
	batch->out.kind = batch->out.item = batch->out.block = 0;
	for (uint8_t k = next_kernel(items); k < WCX_KERNEL_COUNT; k = next_kernel(items)) {
		struct wcx_batch_launch *launch = &batch->layout.launches[batch->layout.launch_count++];

		*launch = (struct wcx_batch_launch){ .kernel = k };
		launch->waits = k >= WCX_KERNEL_DIFFERENCE_FIRST && k < WCX_KERNEL_FUSED_FIRST && !differs;
		differs |= launch->waits;
		place_kinds(batch, launch);
		place_blocks(batch, launch, items[k]);
		items[k] = 0;
	}
	place_rest(batch);
	set_offsets(batch->item_count, batch->place_count, batch->kind_count, batch->table_count, batch->out.block,
		    &batch->layout);
	return &batch->layout;
}

/* --- the control --- */

static void write_table(const struct wcx_freq_table *freqs, struct wcx_batch_table *ret)
{
	uint32_t sum = 0;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		ret->start[s] = (uint16_t)sum;
		sum += freqs->freq[s];
	}
	ret->start[WCX_SYMBOL_COUNT] = ret->start[WCX_SYMBOL_COUNT + 1] = (uint16_t)sum;
}

static void write_set(const struct table_set *set, struct wcx_batch_table *tables)
{
	for (uint32_t t = 0; t < set->count; t++) {
		struct wcx_freq_table pairs;

		if (set->is_pair)
			wcx_freq_table_pair(&set->tables[t], &pairs);
		write_table(set->is_pair ? &pairs : &set->tables[t], &tables[set->first + t]);
	}
}

/* Whether an item is decoded together with the one before it, its base. */
static bool is_fused(const struct wcx_tile_batch *batch, uint32_t item)
{
	return batch->kind_items[batch->items[item].kind].base_kind != NO_KIND;
}

void wcx_tile_batch_write(struct wcx_tile_batch *batch, uint8_t *control)
{
	const struct wcx_batch_layout *layout = &batch->layout;
	uint32_t fused_item = batch->out.item; /* where the next base of a fused item goes, behind all others */
	struct wcx_tile_item *items = (struct wcx_tile_item *)(void *)control;
	struct wcx_batch_kind *kinds = (struct wcx_batch_kind *)(void *)(control + layout->kinds_offset);
	uint32_t *left = (uint32_t *)(void *)(control + layout->left_offset);
	struct wcx_batch_table *tables = (struct wcx_batch_table *)(void *)(control + layout->tables_offset);

	for (uint32_t i = 0; i < batch->kind_count; i++) {
		const uint32_t kind = batch->order[i];

		batch->kind_items[kind].place = i;
		kinds[i] = batch->kinds[kind];
		left[i] = batch->kind_items[kind].item_count;
		batch->kind_items[kind].next_item = kinds[i].first_item;
	}
	for (uint32_t i = 0; i < batch->kind_count; i++)
		if (batch->kind_items[batch->order[i]].base_kind != NO_KIND)
			kinds[i].base_kind = batch->kind_items[batch->kind_items[batch->order[i]].base_kind].place;
	for (uint32_t i = 0; i < batch->item_count; i++) {
		const bool is_taken = i + 1 < batch->item_count && is_fused(batch, i + 1);
		struct wcx_tile_item *item =
			&items[is_taken ? fused_item++ : batch->kind_items[batch->items[i].kind].next_item++];

		*item = batch->items[i];
		if (is_fused(batch, i))
			item->base_item = fused_item - 1;
	}
	memcpy(control + layout->places_offset, batch->places, batch->place_count * sizeof *batch->places);
	for (uint32_t i = 0; i < batch->set_count; i++)
		write_set(&batch->sets[i], tables);
	memcpy(control + layout->blocks_offset, batch->blocks, batch->out.block * sizeof *batch->blocks);
}
