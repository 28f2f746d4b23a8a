// SPDX-License-Identifier: MIT
/*
 * diskfs check: what is wrong with an image file, a line each on stdout, and what became of it.
 * Which format it is the formats find out themselves.
 */
#include <signal.h>
#include <stdio.h>
#include "fs/image_commands.h"
#include "fs/progress.h"

struct report {
	unsigned mended, left;
	struct progress progress;
};

static void show_finding(void *context, const struct image_finding *finding)
{
	struct report *report = context;

	progress_end(&report->progress);
	printf("%s: %s", finding->path, finding->text);
	if (finding->is_mended)
		printf(": repaired, %s\n", finding->remedy);
	else if (finding->remedy)
		printf(" (--repair: %s)\n", finding->remedy);
	else
		putchar('\n');
	if (finding->is_mended)
		report->mended++;
	else if (!finding->is_note)
		report->left++;
}

/* By the first format that it is of. NULL: by none. */
static const struct image_ops *check_by_format(const struct driver *const *drivers,
					       const struct image_check *check,
					       enum image_verdict *verdict, struct err *err)
{
	for (; *drivers; drivers++) {
		const struct image_ops *image = (*drivers)->image;

		if (!image || !image->check)
			continue;
		*verdict = image->check(check, err);
		if (*verdict != IMAGE_FOREIGN)
			return image;
	}
	return NULL;
}

static int finish(const struct report *report)
{
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "diskfs: cannot write the output\n");
		return CHECK_FAILED;
	}
	if (report->left > 0)
		return CHECK_LEFT;
	return report->mended > 0 ? CHECK_MENDED : CHECK_CLEAN;
}

int check_image(const struct driver *const *drivers, const char *path, bool repair)
{
	struct report report = {.left = 0};
	struct image_check check = {
		.path = path,
		.repair = repair,
		.finding = show_finding,
		.context = &report,
		.progress = {progress_show, &report.progress},
	};
	enum image_verdict verdict = IMAGE_FOREIGN;
	const struct image_ops *image;
	struct err err;

	signal(SIGXFSZ, SIG_IGN);
	progress_begin(&report.progress);
	image = check_by_format(drivers, &check, &verdict, &err);
	progress_end(&report.progress);
	if (!image)
		err_set(&err, "'%s' is of no format that can be checked", path);
	if (!image || verdict == IMAGE_FAILED) {
		fprintf(stderr, "diskfs: %s\n", err.text);
		finish(&report);
		return CHECK_FAILED;
	}
	if (report.left + report.mended == 0)
		printf("%s: %s, nothing is wrong\n", path, image->name);
	return finish(&report);
}
