// SPDX-License-Identifier: MIT
/*
 * A file is the parent of an image if it has the unique id that the child's header says, and has not
 * been changed since: the header's time stamp is that of the file's last change, or, as some writers
 * have it, that of the parent's own footer. 0 says nothing.
 */
#include <string.h>
#include "backends/vhd/lineage.h"

enum kinship kinship_of(const struct vhd_header *child, const struct vhd_footer *footer,
			const char *name, const uint32_t *changed, struct err *err)
{
	uint32_t noted = child->parent_time_stamp;
	char found[33], wanted[33];

	if (memcmp(child->parent_id, footer->id, sizeof(footer->id)) != 0) {
		err_set(err, "'%s' is not the parent: its unique id is %s, not %s", name,
			format_id(found, footer->id), format_id(wanted, child->parent_id));
		return KIN_STRANGER;
	}
	if (noted == 0 || noted == footer->time_stamp || (changed && noted == *changed))
		return KIN_PARENT;
	err_set_key(err, "parent_time",
		    "the parent, '%s', has been changed since the image was made over it, so what "
		    "is read may be wrong; or its time stamp was not kept when it was copied "
		    "(parent_time = ignore uses it all the same)",
		    name);
	return KIN_CHANGED;
}
