// SPDX-License-Identifier: MIT
#include "fs/progress.h"
#include <stdio.h>
#include <unistd.h>

#define BAR_WIDTH   40
#define PATIENCE_NS NS_PER_S
#define INTERVAL_NS (NS_PER_S / 10)

void progress_begin(struct progress *progress)
{
	*progress = (struct progress){.is_wanted = isatty(STDERR_FILENO),
				      .next_ns = now_ns() + PATIENCE_NS};
}

void progress_show(void *context, uint64_t done, uint64_t total)
{
	struct progress *progress = context;
	double part = total > 0 ? (double)done / (double)total : 1;
	char done_text[48], total_text[48];
	int filled = (int)(part * BAR_WIDTH);
	uint64_t now;

	if (!progress->is_wanted)
		return;
	now = now_ns();
	/* A bar that is there also shows the end. */
	if (now < progress->next_ns && !(progress->is_shown && done == total))
		return;
	progress->next_ns = now + INTERVAL_NS;
	progress->is_shown = true;
	fprintf(stderr, "\r[%.*s%*s] %3d %%, %s of %s\033[K", filled,
		"########################################", BAR_WIDTH - filled, "",
		(int)(part * 100), format_size(done_text, done), format_size(total_text, total));
}

void progress_end(struct progress *progress)
{
	if (progress->is_shown)
		fputc('\n', stderr);
	progress->is_shown = false;
}
