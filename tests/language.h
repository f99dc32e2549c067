/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UM_TEST_LANGUAGE_H
#define UM_TEST_LANGUAGE_H

#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Enter a locale: the machine's, or one made for this test. */
static inline bool enter_locale(const char *language)
{
    char folder[] = "/tmp/um_locale_XXXXXX", name[32], command[200];
    snprintf(name, sizeof name, "%s.UTF-8", language);
    if (setlocale(LC_ALL, name))
        return true;
    if (!mkdtemp(folder))
        return false;
    snprintf(command, sizeof command, "localedef -i %s -f UTF-8 %s/%s >/dev/null 2>&1", language,
             folder, name);
    setenv("LOCPATH", folder, 1);
    bool good = system(command) == 0 && setlocale(LC_ALL, name);
    unsetenv("LOCPATH");
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) == 0 && good;
}

#endif
