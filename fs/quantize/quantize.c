/* SPDX-License-Identifier: MIT */
/* The recipe for a model's directory: what is refused, what becomes INT8, and the files around the weights. */
#include "fs/quantize/quantize.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/array.h"
#include "fs/base/file_copy.h"
#include "fs/base/output_file.h"
#include "fs/base/output_tree.h"
#include "fs/base/path.h"
#include "fs/quantize/copy_rest.h"
#include "fs/quantize/ignore_list.h"
#include "fs/quantize/model_config.h"
#include "fs/quantize/model_files.h"

enum { WEIGHT_SUFFIX_BYTES = 7 /* of .weight */ };

struct job {
	const char *source;
	const struct wcx_quantize_options *options;
	struct wcx_model_config config;
	struct wcx_model_files files;
	struct wcx_ignore_list *ignore;
	struct wcx_shard *shards; /* files.count of them */
	const char *head;         /* of the model's type, or NULL */
	char **kept_names;        /* of modules for the new config's ignore */
	size_t kept_count, kept_capacity;
	struct wcx_quantize_result result;
	uint64_t done_bytes;
};

static int no_memory(const struct job *job, struct wcx_error *err)
{
	return wcx_fail(err, ENOMEM, "%s: no memory", job->source);
}

/* --- what is refused --- */

static int check_config(struct job *job, struct wcx_error *err)
{
	const char *type = job->config.model_type;

	if (job->config.is_quantized)
		return wcx_fail(err, EINVAL, "%s: is quantised already: config.json has a quantization_config", job->source);
	switch (wcx_model_layout(type, &job->head)) {
	case WCX_LAYOUT_LINEAR:
		return 0;
	case WCX_LAYOUT_CONV1D:
		return wcx_fail(err, EINVAL,
				"%s: models of type %s have other layers than torch.nn.Linear, such as transposed ones, "
				"for which compressed-tensors has no form",
				job->source, type);
	case WCX_LAYOUT_UNKNOWN:
		break;
	}
	if (!*type)
		return wcx_fail(err, EINVAL, "%s: config.json has no model_type, so the layout of the weights is not known",
				job->source);
	if (!job->options->allows_unknown_types)
		return wcx_fail(err, EINVAL,
				"%s: whether the matrices of model_type %s are linear layers is not known; "
				"--unknown-type quantises them by their names, --dry-run shows which",
				job->source, type);
	job->head = "lm_head";
	return 0;
}

static int check_tensor(const struct job *job, const struct wcx_shard *shard, const struct wcx_shard_tensor *tensor,
			struct wcx_error *err)
{
	const struct wcx_tensor *source = tensor->source;
	const char *listed;

	if (strncmp(source->dtype, "F8", 2) == 0)
		return wcx_fail(err, EINVAL, "%s: tensor %s is %s: FP8 models are not quantised to INT8", shard->path,
				source->name, source->dtype);
	if (wcx_tensor_is_quantized(source))
		return wcx_fail(err, EINVAL, "%s: is quantised already, by tensor %s (%s)", shard->path, source->name,
				source->dtype);
	if (tensor->role == WCX_ROLE_EXPERT)
		return wcx_fail(err, EINVAL,
				"%s: tensor %s belongs to a mixture of experts, whose layers loaders arrange in "
				"their own ways; --ignore 're:.*experts' leaves all experts as they are",
				shard->path, source->name);
	if (tensor->role == WCX_ROLE_LINEAR && strcmp(source->dtype, "F64") == 0)
		return wcx_fail(err, EINVAL, "%s: tensor %s is F64, of which compressed-tensors makes no INT8", shard->path,
				source->name);
	listed = wcx_model_files_shard_of(&job->files, source->name);
	if (job->files.index && (!listed || strcmp(listed, shard->name) != 0))
		return wcx_fail(err, EINVAL, "%s: tensor %s is not there by %s", shard->path, source->name,
				WCX_MODEL_INDEX_NAME);
	return 0;
}

/* --- the plan --- */

/* The name of a tensor's module, without the part behind its last dot. */
static size_t module_bytes(const struct wcx_tensor *tensor)
{
	const char *dot = memrchr(tensor->name, '.', tensor->name_bytes);

	return dot ? (size_t)(dot - tensor->name) : 0;
}

static int keep_name(struct job *job, const char *name, size_t bytes)
{
	char **grown;

	for (size_t i = 0; i < job->kept_count; i++)
		if (strlen(job->kept_names[i]) == bytes && memcmp(job->kept_names[i], name, bytes) == 0)
			return 0;
	grown = wcx_array_reserve(job->kept_names, &job->kept_capacity, job->kept_count + 1, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	job->kept_names = grown;
	grown[job->kept_count] = strndup(name, bytes);
	return grown[job->kept_count] ? (int)(job->kept_count++, 0) : -ENOMEM;
}

static enum wcx_float_type float_type(const char *dtype)
{
	return strcmp(dtype, "F16") == 0 ? WCX_FLOAT_F16 : strcmp(dtype, "BF16") == 0 ? WCX_FLOAT_BF16 : WCX_FLOAT_F32;
}

static int plan_tensor(struct job *job, struct wcx_shard_tensor *tensor, struct wcx_error *err)
{
	const struct wcx_tensor *source = tensor->source;
	const size_t module = module_bytes(source);
	bool is_expert;

	tensor->role = wcx_tensor_role(source, job->config.vocab_size);
	is_expert = tensor->role == WCX_ROLE_EXPERT;
	if (wcx_ignore_list_has(job->ignore, source->name, module))
		tensor->role = WCX_ROLE_IGNORED;
	tensor->recipe.weights = float_type(source->dtype);
	tensor->recipe.scales = job->options->has_scales ? job->options->scales : tensor->recipe.weights;
	if (tensor->role == WCX_ROLE_LINEAR) {
		job->result.linear_count++;
		job->result.linear_source_bytes += source->bytes;
		job->result.has_dtype[tensor->recipe.weights] = true;
		return 0;
	}
	job->result.kept_count++;
	/*
	 * Embeddings are no Linear for loaders, but what only looks like one here may be.  Experts can be tens of thousands:
	 * the entry that named them is enough.
	 */
	if (wcx_tensor_is_matrix(source) && !is_expert && keep_name(job, source->name, module) < 0)
		return no_memory(job, err);
	return 0;
}

static int plan_shard(struct job *job, struct wcx_shard *shard, const char *name, struct wcx_error *err)
{
	int r = wcx_shard_open(job->source, name, shard, err);

	if (r < 0)
		return r;
	shard->is_packed = job->options->is_packed;
	shard->is_per_tensor = job->options->is_per_tensor;
	for (size_t i = 0; i < shard->st->tensor_count && r == 0; i++) {
		r = plan_tensor(job, &shard->tensors[i], err);
		if (r == 0)
			r = check_tensor(job, shard, &shard->tensors[i], err);
	}
	if (r == 0)
		r = wcx_shard_plan(shard, err);
	for (size_t i = 0; i < shard->output_count && r == 0; i++)
		if (shard->outputs[i].part != WCX_PART_COPY)
			job->result.linear_quantised_bytes += shard->outputs[i].bytes;
	job->result.source_bytes += (uint64_t)shard->file.st_size;
	job->result.quantised_bytes += shard->output_bytes;
	return r;
}

static void warn_of_unused(const struct job *job)
{
	const struct wcx_job_options *options = &job->options->job;
	const char *entry;
	char text[512];

	for (size_t i = 0; options->warn && (entry = wcx_ignore_list_unused(job->ignore, &i));) {
		snprintf(text, sizeof text, "--ignore %s: no module has such a name", entry);
		options->warn(options->user, text);
	}
}

static int plan(struct job *job, struct wcx_error *err)
{
	const struct wcx_quantize_options *options = job->options;
	int r = wcx_ignore_list_create(options->ignore, options->ignore_count, &job->ignore, err);

	if (r == 0)
		r = wcx_model_config_read(job->source, &job->config, err);
	if (r == 0)
		r = check_config(job, err);
	if (r == 0)
		r = wcx_model_files_find(job->source, &job->files, err);
	if (r < 0)
		return r;
	job->result.file_count = job->files.count;
	job->shards = calloc(job->files.count, sizeof *job->shards);
	if (!job->shards || (job->head && keep_name(job, job->head, strlen(job->head)) < 0))
		return no_memory(job, err);
	/* What loaders call the output layer, whatever it is called in files (GPT-NeoX: embed_out). */
	if (keep_name(job, "lm_head", strlen("lm_head")) < 0)
		return no_memory(job, err);
	for (size_t i = 0; i < options->ignore_count; i++)
		if (keep_name(job, options->ignore[i], strlen(options->ignore[i])) < 0)
			return no_memory(job, err);
	for (size_t i = 0; i < job->files.count && r == 0; i++)
		r = plan_shard(job, &job->shards[i], job->files.names[i], err);
	if (r == 0 && job->files.index && /* the others were found to be where the index says */
	    wcx_model_files_tensor_count(&job->files) != job->result.linear_count + job->result.kept_count)
		r = wcx_fail(err, EINVAL, "%s/%s: names tensors that its files do not have", job->source,
			     WCX_MODEL_INDEX_NAME);
	if (r == 0 && job->result.linear_count == 0)
		r = wcx_fail(err, EINVAL, "%s: no tensor is the weight of a linear layer", job->source);
	if (r == 0)
		warn_of_unused(job);
	return r;
}

/* --- the output --- */

/*
 * Refuses what cannot fit, and warns of what may not: how small a file is that is kept in another form, nobody knows before.
 * It exists in both for a while.
 */
static int check_space(const struct job *job, const struct wcx_output_tree *tree, struct wcx_error *err)
{
	const struct wcx_quantize_options *options = job->options;
	const uint64_t free_bytes = wcx_free_bytes(tree->fd);
	uint64_t least = job->result.quantised_bytes, most = least;
	struct wcx_error text;

	if (options->keep) {
		least = 0;
		for (size_t i = 0; i < job->files.count; i++)
			least = WCX_MAX(least, job->shards[i].output_bytes);
		most += least;
	}
	least += job->result.rest_bytes;
	most += job->result.rest_bytes;
	if (least > free_bytes)
		return wcx_fail(err, ENOSPC, "%s: needs %s%llu bytes, %llu are free", tree->path,
				least < most ? "at least " : "", (unsigned long long)least, (unsigned long long)free_bytes);
	if (most > free_bytes && options->job.warn) {
		wcx_fail(&text, 0, "%s: may need up to %llu bytes, %llu are free", tree->path, (unsigned long long)most,
			 (unsigned long long)free_bytes);
		options->job.warn(options->job.user, text.text);
	}
	return 0;
}

static void tell_tensors(const struct job *job, const struct wcx_shard *shard)
{
	for (size_t i = 0; job->options->tensor && i < shard->st->tensor_count; i++)
		job->options->tensor(job->options->job.user, shard, &shard->tensors[i]);
}

/* Gives the finished file a name, or passes it on; the output is used up when 0 is returned. */
static int keep_output(const struct job *job, struct wcx_output_file *output, struct wcx_error *err)
{
	const struct wcx_quantize_options *options = job->options;
	const char *path = output->options.path;
	int r;

	if (!options->keep)
		return wcx_output_commit(output, err);
	r = wcx_file_metadata_copy(output->options.source_fd, output->fd, path, options->job.warn, options->job.user);
	if (r < 0)
		return wcx_fail(err, -r, "%s: %s", path, strerror(-r));
	r = options->keep(options->job.user, output->fd, path, err);
	if (r == 0)
		wcx_output_discard(output);
	return r;
}

/* A file is looked at before it is read by its plan, and all are at the end, by their names. */
static int check_unchanged(const struct wcx_shard *shard, int r, const struct stat *now, struct wcx_error *err)
{
	if (r < 0)
		return wcx_fail(err, errno, "%s: %s", shard->path, strerror(errno));
	if (!wcx_same_version(&shard->file, now))
		return wcx_fail(err, EBUSY, "%s: changed while the model was quantised", shard->path);
	return 0;
}

static int write_shard(struct job *job, struct wcx_shard *shard, int src_fd, const char *path, struct wcx_error *err)
{
	const struct wcx_job_options *options = &job->options->job;
	const struct wcx_output_options output_options = {
		.path = path, .source_fd = src_fd, .warn = options->warn, .user = options->user
	};
	struct wcx_output_file output;
	int r = wcx_output_create(&output, &output_options, err);

	if (r < 0)
		return r;
	r = wcx_shard_run(shard, src_fd, output.fd, options, &job->done_bytes, job->result.source_bytes, err);
	if (r == 0)
		r = keep_output(job, &output, err);
	if (r < 0)
		wcx_output_discard(&output);
	return r;
}

static int make_shard(struct job *job, struct wcx_shard *shard, const char *directory, struct wcx_error *err)
{
	const int src_fd = open(shard->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char *path = NULL;
	struct stat st;
	int r;

	if (src_fd < 0)
		return wcx_fail(err, errno, "%s: %s", shard->path, strerror(errno));
	r = check_unchanged(shard, fstat(src_fd, &st), &st, err);
	if (r == 0 && asprintf(&path, "%s/%s", directory, shard->name) < 0)
		r = no_memory(job, err);
	if (r == 0)
		r = write_shard(job, shard, src_fd, path, err);
	close(src_fd);
	free(path);
	if (r == 0)
		tell_tensors(job, shard);
	return r;
}

/* Writes text, which is freed, to a file like `name` of the source; NULL stands for no memory. */
static int write_text(const struct job *job, const char *directory, const char *name, char *text, struct wcx_error *err)
{
	const struct wcx_job_options *options = &job->options->job;
	struct wcx_output_options output_options = { .source_fd = -1, .warn = options->warn, .user = options->user };
	char *from = NULL, *to = NULL;
	struct wcx_output_file output;
	int r;

	if (!text || asprintf(&from, "%s/%s", job->source, name) < 0 || asprintf(&to, "%s/%s", directory, name) < 0) {
		r = no_memory(job, err);
		goto out;
	}
	output_options.path = to;
	output_options.source_fd = open(from, O_RDONLY | O_CLOEXEC);
	if (output_options.source_fd < 0) {
		r = wcx_fail(err, errno, "%s: %s", from, strerror(errno));
		goto out;
	}
	r = wcx_output_create(&output, &output_options, err);
	if (r == 0) {
		r = wcx_output_write(&output, text, strlen(text), 0, err);
		if (r == 0)
			r = wcx_output_commit(&output, err);
		if (r < 0)
			wcx_output_discard(&output);
	}
	close(output_options.source_fd);
out:
	free(from);
	free(to);
	free(text);
	return r;
}

static char *index_text(const struct job *job)
{
	struct wcx_index_text index = { 0 };

	for (size_t i = 0; i < job->files.count; i++) {
		const struct wcx_shard *shard = &job->shards[i];

		for (size_t k = 0; k < shard->output_count; k++) {
			char *name = wcx_shard_output_name(&shard->outputs[k]);

			if (name)
				wcx_index_text_add(&index, name, shard->outputs[k].bytes, shard->name);
			free(name);
		}
	}
	return wcx_index_text_finish(&index, &job->files);
}

static char *config_text(const struct job *job)
{
	const struct wcx_quantization quantization = {
		.is_packed = job->options->is_packed,
		.is_per_tensor = job->options->is_per_tensor,
		.ignore = (const char *const *)job->kept_names,
		.ignore_count = job->kept_count,
	};

	return wcx_model_config_quantized(&job->config, &quantization);
}

/* The files of the new directory; config.json, without which no loader takes it for a model, is the last. */
static int make_files(struct job *job, const char *directory, struct wcx_error *err)
{
	uint64_t bytes;
	struct stat st;
	int r = 0;

	for (size_t i = 0; i < job->files.count && r == 0; i++)
		r = make_shard(job, &job->shards[i], directory, err);
	if (r == 0)
		r = wcx_copy_rest(job->source, directory, &job->files, &job->options->job, &bytes, err);
	if (r == 0 && job->files.index)
		r = write_text(job, directory, WCX_MODEL_INDEX_NAME, index_text(job), err);
	if (r == 0)
		r = write_text(job, directory, "config.json", config_text(job), err);
	for (size_t i = 0; i < job->files.count && r == 0; i++)
		r = check_unchanged(&job->shards[i], stat(job->shards[i].path, &st), &st, err);
	return r;
}

/* What is replaced is removed, with all that is in it: none of it may be what is read. */
static int check_replaced(const struct job *job, const char *target, const char *source, struct wcx_error *err)
{
	char replaced[PATH_MAX], shard[PATH_MAX];

	if (!realpath(target, replaced))
		return errno == ENOENT ? 0 : wcx_fail(err, errno, "%s: %s", target, strerror(errno));
	if (strcmp(replaced, source) == 0)
		return wcx_fail(err, EINVAL, "%s: is the model's directory", target);
	if (wcx_path_is_in(source, replaced))
		return wcx_fail(err, EINVAL, "%s: is not replaced, as the model's directory %s is in it", target,
				job->source);
	for (size_t i = 0; i < job->files.count; i++) {
		if (!realpath(job->shards[i].path, shard))
			return wcx_fail(err, errno, "%s: %s", job->shards[i].path, strerror(errno));
		if (wcx_path_is_in(shard, replaced))
			return wcx_fail(err, EINVAL, "%s: is not replaced, as %s is a link into it", target,
					job->shards[i].path);
	}
	return 0;
}

/* The output may be neither the model's directory, nor in it, nor around it. */
static int check_apart(const struct job *job, const char *target, struct wcx_error *err)
{
	char source[PATH_MAX], parent[PATH_MAX], *directory = wcx_directory_of(target);
	int r = 0;

	if (!directory)
		return no_memory(job, err);
	if (!realpath(job->source, source))
		r = wcx_fail(err, errno, "%s: %s", job->source, strerror(errno));
	else if (!realpath(directory, parent)) /* it does not exist yet */
		r = wcx_fail(err, errno, "%s: %s", target, strerror(errno));
	else if (wcx_path_is_in(parent, source))
		r = wcx_fail(err, EINVAL, "%s: is in the model's directory", target);
	else
		r = check_replaced(job, target, source, err);
	free(directory);
	return r;
}

static int make_target(struct job *job, const char *target, struct wcx_error *err)
{
	struct wcx_output_tree tree;
	int r = check_apart(job, target, err);

	if (r == 0)
		r = wcx_output_tree_create(&tree, target, job->options->job.replace, "config.json", err);
	if (r < 0)
		return r;
	r = check_space(job, &tree, err);
	if (r == 0)
		r = make_files(job, tree.temporary, err);
	if (r == 0 && job->options->replaces)
		r = job->options->replaces(job->options->job.user, err);
	if (r == 0)
		r = wcx_output_tree_commit(&tree, job->source, err);
	if (r < 0)
		wcx_output_tree_discard(&tree);
	return r;
}

static void free_job(struct job *job)
{
	for (size_t i = 0; job->shards && i < job->files.count; i++)
		wcx_shard_free(&job->shards[i]);
	free(job->shards);
	for (size_t i = 0; i < job->kept_count; i++)
		free(job->kept_names[i]);
	free(job->kept_names);
	wcx_ignore_list_free(job->ignore);
	wcx_model_files_free(&job->files);
	wcx_model_config_free(&job->config);
}

int wcx_quantize(const char *source, const char *target, const struct wcx_quantize_options *options,
		 struct wcx_quantize_result *ret, struct wcx_error *err)
{
	struct job job = { .source = source, .options = options };
	int r = plan(&job, err);

	if (r == 0)
		r = wcx_copy_rest(source, NULL, &job.files, &options->job, &job.result.rest_bytes, err);
	for (size_t i = 0; options->is_dry_run && i < job.files.count && r == 0; i++)
		tell_tensors(&job, &job.shards[i]);
	if (r == 0 && !options->is_dry_run)
		r = make_target(&job, target, err);
	if (r == 0)
		*ret = job.result;
	free_job(&job);
	return r;
}
